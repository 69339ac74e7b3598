"""The examples of deploy/pipelines as they stand there, as real processes against a real service, over connections that break."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import pytest
import yaml

from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import Served, served, to_environment
from tests.debian import require_debian
from tests.deploy.breaking_proxy import Fault, breaking

PIPELINES = Path(__file__).parents[2] / "deploy" / "pipelines"
QUICK = {"epochs": 1, "second_round_epochs": 1, "fine_tune_epochs": 0, "thresholds": [3.0], "max_branches": 1}
MISSED = {**QUICK, "min_ratio": 1e6}
IN_THE_UPLOAD, BEFORE_THE_ANSWER = Fault(bytes_up=20_000), Fault(bytes_down=0)
KEY = "a-key-of-the-test-which-has-32-characters-and-more"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("pipelines") / "home", variables={"BAYESPRESS_ADMIN_KEY": KEY}) as running:
        yield running


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "my model.onnx"
    path.write_bytes(digits_model())
    return path


def run(command: Sequence[str | Path], url: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = to_environment({"BAYESPRESS_URL": url, "BAYESPRESS_API_KEY": KEY, **variables})
    return subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)


def job_ids(service: Served) -> list[str]:
    return [job["id"] for job in service.client.get("/v1/jobs", params={"limit": 100}).json()["data"]]


def poll_py() -> list[str | Path]:
    return [sys.executable, PIPELINES / "poll.py"]


def submit_sh() -> list[str | Path]:
    for package in ("curl", "jq"):
        require_debian(package, package)
    return [PIPELINES / "submit.sh"]


def check_downloads(service: Served, job_id: str, out: Path) -> None:
    artifacts = service.client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]
    assert len(artifacts) >= 6
    assert {artifact["name"]: artifact["sha256"] for artifact in artifacts} == {
        artifact["name"]: hashlib.sha256((out / artifact["name"]).read_bytes()).hexdigest() for artifact in artifacts
    }
    onnx.checker.check_model(onnx.load(out / "model.onnx"))


@pytest.mark.parametrize("program", [poll_py, submit_sh])
def test_two_broken_connections_make_one_job_which_is_driven_to_its_end(service: Served, model: Path, tmp_path: Path, program) -> None:
    before, out = job_ids(service), tmp_path / "small"
    command = [*program(), model, "builtin:digits", out, json.dumps(QUICK)]
    with breaking(str(service.client.base_url), [IN_THE_UPLOAD, BEFORE_THE_ANSWER]) as proxy:
        done = run(command, proxy.url, BAYESPRESS_IDEMPOTENCY_KEY=f"run-{program.__name__}")
    assert done.returncode == 0, done.stderr
    assert proxy.broken == 2
    assert all(f"authorization: bearer {KEY}\r\n".encode() in head.lower() for head in proxy.heads)
    # The second request had been received whole; a third one without its key would have made a second job.
    (job_id,) = set(job_ids(service)) - set(before)
    job = service.client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "succeeded"
    assert done.stdout.strip() == job["verdict"]
    check_downloads(service, job_id, out)

    again = run(command, str(service.client.base_url), BAYESPRESS_IDEMPOTENCY_KEY=f"run-{program.__name__}")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert len(job_ids(service)) == len(before) + 1


@pytest.mark.parametrize("program", [poll_py, submit_sh])
def test_a_refused_request_is_told_at_once_and_not_sent_again(service: Served, model: Path, tmp_path: Path, program) -> None:
    with breaking(str(service.client.base_url)) as proxy:
        done = run([*program(), model, "builtin:digits", tmp_path / "small", '{"target_sparsity": 0.9}'], proxy.url)
    assert done.returncode == 1
    assert "target_sparsity" in done.stderr
    assert len(proxy.heads) == 1


def test_a_missed_gate_ends_with_3_and_all_files(service: Served, model: Path, tmp_path: Path) -> None:
    done = run([*poll_py(), model, "builtin:digits", tmp_path, json.dumps(MISSED)], str(service.client.base_url))
    assert done.returncode == 3, done.stderr
    check_downloads(service, job_ids(service)[0], tmp_path)


def test_the_step_of_a_ci_fails_where_a_gate_is_missed(service: Served, model: Path, tmp_path: Path) -> None:
    job = yaml.safe_load((PIPELINES / "github-actions.yml").read_text())["jobs"]["compress"]
    assert {"BAYESPRESS_URL", "BAYESPRESS_API_KEY", "BAYESPRESS_IDEMPOTENCY_KEY"} <= job["env"].keys()
    (line,) = (step["run"] for step in job["steps"] if "run" in step)
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    shutil.copy(*submit_sh(), folder)
    given = {"MODEL": str(model), "ROWS": "builtin:digits", "CONFIG": json.dumps(MISSED)}
    done = run(["bash", "-e", "-c", line], str(service.client.base_url), cwd=tmp_path, **given)
    assert done.returncode == 3, done.stderr
    check_downloads(service, job_ids(service)[0], tmp_path / "small")


def test_an_event_source_sees_each_event_once_over_connections_that_break(service: Served, model: Path) -> None:
    files = {"model": ("m", model.read_bytes()), "dataset_ref": (None, "builtin:digits"), "config": (None, json.dumps(QUICK))}
    job = service.client.post("/v1/jobs", files=files).json()
    with breaking(str(service.client.base_url), [BEFORE_THE_ANSWER, Fault(bytes_down=900), Fault(bytes_down=1500)]) as proxy:
        done = run([sys.executable, PIPELINES / "events.py", job["id"]], proxy.url)
    assert done.returncode == 0, done.stderr
    assert proxy.broken == 3
    assert all(f"authorization: bearer {KEY}\r\n".encode() in head.lower() for head in proxy.heads)
    assert b"last-event-id:" in proxy.heads[-1].lower()
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    events = service.client.get(f"/v1/jobs/{job['id']}/events", params={"limit": 1000}).json()["data"]
    assert seen == [*events, {"status": "succeeded"}]


def test_the_shell_of_the_examples_is_clean() -> None:
    done = subprocess.run(
        [require_debian("shellcheck", "shellcheck"), *PIPELINES.glob("*.sh")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
