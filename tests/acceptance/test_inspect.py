"""`bayespress inspect` as a real process, and a job of kind inspect in a real service: the same findings, the same refusals."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from compressor import Inspection, inspect
from compressor.errors import CompressionError, Problem
from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import BAYESPRESS, Served, served, to_environment
from tests.service.worker.workplace import processes_of, wait_until

ENDED = {"succeeded", "failed", "failed_gate", "cancelled"}


def model_without_weights() -> bytes:
    """Nothing at the door is against it."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "digits.onnx").write_bytes(digits_model())
    (tmp_path / "relu.onnx").write_bytes(model_without_weights())
    return tmp_path


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = to_environment({"TMPDIR": str(folder / "tmp"), "COLUMNS": "200"})
    return subprocess.run(
        [BAYESPRESS, "inspect", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def refusal(path: Path) -> Problem:
    with pytest.raises(CompressionError) as caught:
        inspect(path)
    return caught.value.to_problem()


def timeless(found: Inspection) -> dict[str, Any]:
    """Without what the machine's speed of the moment has a part in."""
    dumped = found.model_dump(exclude={"verdict"})
    del dumped["estimate"]["seconds_per_1000_rows"]
    return dumped


def test_a_model_is_shown_and_written_and_nothing_else_is(folder: Path) -> None:
    done = command(folder, "digits.onnx", "--out", "found.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = Inspection.model_validate_json((folder / "found.json").read_bytes())
    assert found.verdict in done.stdout
    for weight in found.weights:
        assert f"{weight.name} │ {list(weight.shape)}" in " ".join(done.stdout.split())
    assert sorted(path.name for path in folder.iterdir()) == ["digits.onnx", "found.json", "relu.onnx", "tmp"]
    assert list((folder / "tmp").iterdir()) == []
    assert processes_of(folder) == []


def test_json_is_all_that_stdout_gets(folder: Path) -> None:
    done = command(folder, "digits.onnx", "--json", "--output", "scores", "--set", "batch_size=32")
    assert done.returncode == 0, done.stderr
    found = Inspection.model_validate_json(done.stdout)
    assert found.estimate is not None
    assert (found.estimate.batch_size, found.parameters.variational) == (32, 200 * 64 + 200 * 10)


@pytest.mark.parametrize("arguments", [("relu.onnx",), ("relu.onnx", "--json", "--out", "found.json")])
def test_a_refusal_is_three_lines_with_its_code(folder: Path, arguments: tuple[str, ...]) -> None:
    done = command(folder, *arguments)
    problem = refusal(folder / "relu.onnx")
    assert (done.returncode, done.stdout) == (2, f"{problem.model_dump_json(indent=2)}\n" if "--json" in arguments else "")
    assert done.stderr.splitlines() == [
        f"error: {problem.title} (no_weights): {problem.detail}",
        f"where: {problem.param}",
        f"do:    {problem.suggestion}",
    ]
    assert not (folder / "found.json").exists()
    assert list((folder / "tmp").iterdir()) == []


def test_an_interrupted_inspection_leaves_nothing(folder: Path) -> None:
    environment = to_environment({"TMPDIR": str(folder / "tmp")})
    with subprocess.Popen(
        [BAYESPRESS, "inspect", "digits.onnx"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until(lambda: processes_of(folder) != [], timeout_s=30)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 130
        finally:
            process.kill()
    wait_until(lambda: processes_of(folder) == [], timeout_s=1)
    assert list((folder / "tmp").iterdir()) == []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("inspect") / "home") as running:
        yield running


def inspected(service: Served, model: bytes) -> dict[str, Any]:
    response = service.client.post("/v1/jobs", files={"kind": (None, "inspect"), "model": ("model.onnx", model)})
    assert response.status_code == 202, response.text
    path = response.headers["location"]
    wait_until(lambda: service.client.get(path).json()["status"] in ENDED, timeout_s=60)
    job: dict[str, Any] = service.client.get(path).json()
    return job


def test_a_job_inspects_what_the_library_does(service: Served, folder: Path) -> None:
    job = inspected(service, digits_model())
    assert (job["kind"], job["status"], job["error"], job["progress"]) == ("inspect", "succeeded", None, 1.0)
    artifacts = service.client.get(job["links"]["artifacts"]).json()["data"]
    assert [(artifact["name"], artifact["media_type"]) for artifact in artifacts] == [("inspection.json", "application/json")]
    report = service.client.get(job["links"]["report"])
    assert report.content == service.client.get(artifacts[0]["href"]).content
    found = Inspection.model_validate_json(report.content)
    assert job["verdict"] == found.verdict
    assert timeless(found) == timeless(inspect(folder / "digits.onnx"))


def test_a_refused_model_ends_its_job_with_the_same_problem(service: Served, folder: Path) -> None:
    job = inspected(service, model_without_weights())
    assert (job["kind"], job["status"], job["verdict"]) == ("inspect", "failed", None)
    assert job["error"] == refusal(folder / "relu.onnx").model_dump()
    assert service.client.get(job["links"]["artifacts"]).json() == {"data": []}
    assert service.client.get(job["links"]["report"]).json()["code"] == "artifact_not_found"
