"""The real service with the real trainer: killed and started again, cancelled, out of memory."""

import json
import time
from pathlib import Path
from typing import Any

from service.storage.keys import job_prefix
from service.storage.store import ObjectStore
from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import Served, served
from tests.service.worker.workplace import processes_of, wait_until

QUICK = {"epochs": 1, "second_round_epochs": 1, "fine_tune_epochs": 0, "thresholds": [3.0], "max_branches": 1}
TIMEOUT_S = 120.0


def submit(service: Served, **config: Any) -> str:
    files = {"model": ("model.onnx", digits_model())}
    response = service.client.post("/compress", files=files, data={"dataset_ref": "builtin:digits", "config": json.dumps(QUICK | config)})
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def get(service: Served, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = service.client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
    return job


def wait_until_finished(service: Served, job_id: str) -> dict[str, Any]:
    wait_until(lambda: get(service, job_id)["status"] in {"succeeded", "failed", "failed_gate", "cancelled"}, TIMEOUT_S)
    return get(service, job_id)


def test_kill_9_of_the_service_then_the_job_goes_on_then_cancel(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = ObjectStore(home / "store")
    with served(home) as service:
        job_id = submit(service, epochs=700)
        wait_until(lambda: f"{job_prefix(job_id)}/1/checkpoint.safetensors" in store.list(job_prefix(job_id)), TIMEOUT_S)
        before = get(service, job_id)
        first = {process.pid for process in processes_of(home)}
        assert len(first) == 2
        service.process.kill()
    killed = time.monotonic()
    with served(home) as service:
        wait_until(lambda: {process.pid for process in processes_of(home)} - first, TIMEOUT_S)
        # Long before the lease of 60 s has ended; most of it is the start of the service.
        assert time.monotonic() - killed < 20
        assert not first & {process.pid for process in processes_of(home)}
        wait_until(lambda: get(service, job_id)["phase"] == "fit", TIMEOUT_S)
        assert before["phase"] == "fit"
        job = wait_until_finished(service, job_id)
        assert job["status"] == "succeeded", job
        log = home.with_name("home.log").read_text()
        assert f"{job_id} resumes from the checkpoint of attempt 1" in log
        published = [key for key in store.list(job_prefix(job_id)) if "/artifacts/" in key]
        assert {key.split("/")[2] for key in published} == {"2"}
        assert service.client.get(f"/v1/jobs/{job_id}/report").json()["verdict"]

        running = submit(service, epochs=10_000)
        wait_until(lambda: get(service, running)["phase"] == "fit", TIMEOUT_S)
        asked = time.monotonic()
        assert service.client.post(f"/v1/jobs/{running}/cancel").is_success
        wait_until(lambda: get(service, running)["status"] == "cancelled", 3)
        wait_until(lambda: processes_of(home) == [], 3 - (time.monotonic() - asked))
        assert service.stop() == 0
    assert list((home / "work").iterdir()) == []


def test_out_of_memory_fails_the_job_and_the_service_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(home, variables={"BAYESPRESS_TRAINER_MEMORY_BYTES": str(600 * 1024**2)}) as service:
        for _ in range(2):
            job = wait_until_finished(service, submit(service))
            assert (job["status"], job["error"]["code"]) == ("failed", "out_of_memory"), job
            assert job["error"]["suggestion"]
            assert service.client.get("/livez").is_success
            assert service.client.get("/readyz").is_success
        wait_until(lambda: processes_of(home) == [], 5)
