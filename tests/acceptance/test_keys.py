"""Beyond loopback, as a real process: no start without a key, nothing without one, and no secret in its log or in its children."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.acceptance.served import BAYESPRESS, Served, served, to_environment
from tests.service.api.sample_files import MODEL, PARQUET_FILE
from tests.service.api.test_problems import assert_problem
from tests.service.worker.workplace import wait_until

EVERYWHERE = ("--host", "0.0.0.0")  # noqa: S104  what is tested
ADMIN_KEY = "an-admin-key-of-more-than-thirty-two"
FORM = {"model": ("m", MODEL), "dataset": ("d", PARQUET_FILE)}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BAYESPRESS, *arguments], capture_output=True, text=True, timeout=60, env=to_environment({}), check=False)


def make_key(home: Path, owner: str, scope: str) -> str:
    made = run("keys", "create", "--owner", owner, "--scope", scope, "--home", str(home))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_without_a_key_it_does_not_start_and_says_what_to_do(tmp_path: Path) -> None:
    refused = run("serve", *EVERYWHERE, "--port", "0", "--home", str(tmp_path / "home"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "bayespress keys create" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_with_a_key_it_serves_its_owner_and_nobody_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    alice, bob = make_key(home, "alice", "submit"), make_key(home, "bob", "submit")
    with served(home, *EVERYWHERE, variables={"BAYESPRESS_WORKERS": "0"}) as service:
        assert service.client.get("/livez", headers={"Host": "10.1.2.3"}).status_code == 200
        assert_problem(service.client.get("/v1/jobs"), 401, "missing_key")
        job = service.client.post("/compress", files=FORM, headers=bearer(alice)).json()
        assert job["owner"] == "alice"
        assert_problem(service.client.get(job["links"]["self"], headers=bearer(bob)), 404, "job_not_found")
        # Made and revoked while it runs.
        carol = make_key(home, "carol", "admin")
        assert service.client.get(job["links"]["self"], headers=bearer(carol)).status_code == 200
        assert run("keys", "revoke", carol[3:19], "--home", str(home)).returncode == 0
        assert_problem(service.client.get(job["links"]["self"], headers=bearer(carol)), 401, "invalid_key")
        for place in (f"/v1/jobs/{alice}", f"/v1/jobs?key={alice}", f"/livez?key={alice}", f"/%2e/{alice}", f"/v1/jobs/{alice[:40]}"):
            answer = service.client.get(place, headers=bearer(bob) | {"X-Request-ID": alice})
            assert alice[20:40] not in answer.text + str(answer.headers)
        assert service.stop() == 0
        assert "(a key in the address)" in service.log()
        assert [key for key in (alice, bob, carol) if key[20:40] in service.log()] == []


def test_the_admin_key_reaches_no_child_of_the_service(tmp_path: Path) -> None:
    with served(tmp_path / "home", *EVERYWHERE, variables={"BAYESPRESS_ADMIN_KEY": ADMIN_KEY}) as service:
        job = service.client.post("/compress", files=FORM, headers=bearer(ADMIN_KEY)).json()
        assert job["owner"] == "admin"
        assert ADMIN_KEY in str(psutil.Process(service.process.pid).environ())
        seen = watch_children(service, job["links"]["self"])
        assert service.stop() == 0
        assert ADMIN_KEY not in service.log()
    assert any(b"service.worker.runner" in command for command, _ in seen)
    assert [command for command, environment in seen if ADMIN_KEY.encode() in environment + command] == []
    files = [Path(folder, name) for folder, _, names in os.walk(tmp_path) for name in names]
    assert [path for path in files if ADMIN_KEY.encode() in path.read_bytes()] == []


def watch_children(service: Served, path: str) -> set[tuple[bytes, bytes]]:
    """Command line and environment of every process that the service had until its job has ended."""
    seen: set[tuple[bytes, bytes]] = set()
    own = Path(f"/proc/{service.process.pid}/cmdline").read_bytes()

    def ended() -> bool:
        for child in psutil.Process(service.process.pid).children(recursive=True):
            folder = Path("/proc") / str(child.pid)
            try:
                command = (folder / "cmdline").read_bytes()
                # Between fork and exec a child is a copy of the service.
                if command != own:
                    seen.add((command, (folder / "environ").read_bytes()))
            except OSError:  # it has ended meanwhile
                continue
        finished_at: str | None = service.client.get(path, headers=bearer(ADMIN_KEY)).json()["finished_at"]
        return finished_at is not None

    wait_until(ended, timeout_s=120)
    return seen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_on_loopback_nobody_needs_one(tmp_path: Path, host: str) -> None:
    with served(tmp_path / "home", "--host", host, variables={"BAYESPRESS_WORKERS": "0"}) as service:
        assert service.client.get("/v1/jobs").json() == {"data": [], "next": None}
        assert service.stop() == 0
