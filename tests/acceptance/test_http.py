"""A real service over real HTTP: wrong requests are refused at once and leave nothing behind; start, stop, memory."""

import io
import pickle
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from tests.acceptance.served import BAYESPRESS, Served, served, to_environment
from tests.service.api.sample_files import MODEL, PARQUET_FILE
from tests.service.worker.workplace import wait_until

# Requests are taken and nothing runs, so what is seen is the HTTP side alone.
NO_WORKER = {"BAYESPRESS_WORKERS": "0", "BAYESPRESS_MAX_UPLOAD_BYTES": "300000000"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("http") / "home", variables=NO_WORKER) as running:
        yield running


def torch_file() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(10, 10)}, file)
    return file.getvalue()


WRONG: dict[str, tuple[dict[str, bytes | str], int, str, str, str]] = {
    "text file": ({"model": b"not a model\n" * 100}, 422, "invalid_model", "model", "text"),
    "truncated ONNX": ({"model": MODEL[: len(MODEL) // 2]}, 422, "invalid_model", "model", "truncated: field 7 (graph) says"),
    "pickle": ({"model": pickle.dumps({"weight": [0.0]})}, 422, "invalid_model", "model", "a pickle"),
    "torch.save file": ({"model": torch_file()}, 422, "invalid_model", "model", "such as torch.save writes"),
    "unknown config key": ({"config": '{"target_sparsity": 0.9}'}, 422, "invalid_config", "target_sparsity", "not an option"),
    "server file": ({"dataset_ref": "file:/etc/hostname"}, 422, "dataset_ref_not_allowed", "dataset_ref", "data root"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_refused_at_once_and_leaves_nothing(service: Served, case: str) -> None:
    changes, status, code, param, words = WRONG[case]
    files: dict[str, tuple[str, bytes]] = {"model": ("model.onnx", MODEL)}
    if "dataset_ref" not in changes:
        files["dataset"] = ("rows.parquet", PARQUET_FILE)
    files |= {name: ("file", value) for name, value in changes.items() if isinstance(value, bytes)}
    data = {name: value for name, value in changes.items() if isinstance(value, str)}
    started = time.monotonic()
    response = service.client.post("/compress", files=files, data=data)
    assert time.monotonic() - started < 2
    assert_refused(service, response, status, code)
    problem = response.json()
    assert problem["param"] == param
    assert words in problem["detail"]
    assert problem["suggestion"]


def test_a_body_over_the_cap_is_refused_at_once_and_leaves_nothing(service: Served) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="dataset"; filename="d"\r\n\r\nPAR1'
        while True:
            yield bytes(1_000_000)

    response = service.client.post("/compress", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert_refused(service, response, 413, "payload_too_large")


def assert_refused(service: Served, response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert service.files() == []
    assert service.client.get("/v1/jobs").json() == {"data": [], "next": None}
    assert service.client.get("/readyz").json() == {"status": "ok", "checks": ["database", "store", "dispatcher", "webhooks"]}


def peak_rss_mb(service: Served) -> float:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def test_a_large_upload_does_not_grow_the_process(service: Served) -> None:
    before = peak_rss_mb(service)
    rows = io.BytesIO(b"PAR1" + bytes(200_000_000) + b"PAR1")
    response = service.client.post("/compress", files={"model": ("m", MODEL), "dataset": ("d", rows)})
    assert response.status_code == 202
    assert peak_rss_mb(service) - before < 40
    assert service.client.post(response.json()["links"]["cancel"]).json()["status"] == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_with_code_0_and_its_jobs_are_there_again(tmp_path: Path, number: signal.Signals) -> None:
    with served(tmp_path / "home", variables=NO_WORKER) as service:
        files = {"model": ("m", MODEL), "dataset_ref": (None, "builtin:digits")}
        job = service.client.post("/compress", files=files).json()
        assert service.stop(number) == 0
    with served(tmp_path / "home", variables=NO_WORKER) as service:
        assert service.client.get(f"/v1/jobs/{job['id']}").json() == job


def test_a_killed_service_gives_its_home_free_and_a_living_one_does_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(home) as service:
        command = [BAYESPRESS, "serve", "--home", str(home), "--port", "0"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, env=to_environment({}), check=False)
        assert second.returncode == 1
        assert "Traceback" not in second.stderr
        assert f"{home} is in use by another service" in second.stderr
        assert second.stdout == ""
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    with served(home) as service:
        assert service.client.get("/livez").status_code == 200


def test_a_service_without_workers_takes_requests_beside_one_that_has_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(home) as worker, served(home, variables=NO_WORKER) as front:
        # Framed as a parquet file and none: the trainer finds that out.
        files = {"model": ("m", MODEL), "dataset": ("d", PARQUET_FILE)}
        response = front.client.post("/compress", files=files)
        assert response.status_code == 202
        path = response.headers["location"]
        wait_until(lambda: worker.client.get(path).json()["status"] == "failed", timeout_s=60)
        assert front.client.get(path).json() == worker.client.get(path).json()
        assert [service.client.get("/readyz").json()["status"] for service in (worker, front)] == ["ok", "ok"]
        assert front.stop() == 0
        assert worker.stop() == 0


def test_options_come_from_the_environment_too(tmp_path: Path) -> None:
    roots = tmp_path / "rows"
    roots.mkdir()
    (roots / "d.parquet").write_bytes(PARQUET_FILE)
    with served(tmp_path / "home", variables={**NO_WORKER, "BAYESPRESS_DATA_ROOTS": str(roots)}) as service:
        files = {"model": ("m", MODEL), "dataset_ref": (None, f"file:{roots}/d.parquet")}
        assert service.client.post("/v1/jobs", files=files).status_code == 202
