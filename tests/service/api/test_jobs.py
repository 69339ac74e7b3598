"""/v1/jobs: pages, states, cancelling."""

import pytest

from compressor.errors import OutOfMemory
from service.jobs.job import JobInput, new_job
from service.jobs.states import TERMINAL, Status
from service.storage.keys import checkpoint_key, job_prefix
from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL, PARQUET_FILE
from tests.service.storage.objects import put_bytes


def insert_queued(service: LiveService) -> str:
    job = new_job(
        config={"seed": 3}, inputs={"model": JobInput(key="k", bytes=3, sha256="0" * 64), "dataset": JobInput(ref="builtin:digits")}
    )
    service.jobs.insert(job)
    return job.id


def test_pages_follow_each_other_newest_first(service: LiveService) -> None:
    inserted = [insert_queued(service) for _ in range(7)]
    collected: list[str] = []
    after: str | None = None
    for _ in range(20):
        page = service.client.get("/v1/jobs", params={"limit": 3} | ({"after": after} if after else {})).json()
        collected += [job["id"] for job in page["data"]]
        after = page["next"]
        if after is None:
            break
    assert collected == sorted(collected, reverse=True)
    assert len(set(collected)) == len(collected)
    assert set(inserted) <= set(collected)


def test_a_full_last_page_has_no_next(service: LiveService) -> None:
    insert_queued(service)
    total = len(service.client.get("/v1/jobs", params={"limit": 100}).json()["data"])
    page = service.client.get("/v1/jobs", params={"limit": total}).json()
    assert (len(page["data"]), page["next"]) == (total, None)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x"])
def test_a_wrong_limit_is_a_problem(service: LiveService, query: str) -> None:
    response = service.client.get(f"/v1/jobs?{query}")
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (422, "invalid_request", "limit")


def test_a_failed_job_is_a_200_with_the_problem_inside(service: LiveService) -> None:
    problem = OutOfMemory("The trainer was killed.", suggestion="Lower batch_size.").to_problem()
    job = new_job(config={}, inputs={"dataset": JobInput(ref="builtin:digits")}).model_copy(
        update={"status": Status.FAILED, "error": problem}
    )
    service.jobs.insert(job)
    response = service.client.get(f"/v1/jobs/{job.id}")
    assert response.status_code == 200
    assert response.json()["status"] == "failed"
    assert response.json()["error"] == problem.model_dump()


def test_nothing_of_the_workers_inner_life_is_shown(service: LiveService) -> None:
    shown = service.client.get(f"/v1/jobs/{insert_queued(service)}").json()
    assert set(shown) & {"fence", "lease_until", "home", "process", "log_tail", "max_attempts"} == set()
    assert "key" not in shown["inputs"]["model"]


def test_a_queued_job_is_cancelled_at_once_and_again_without_harm(service: LiveService) -> None:
    job_id = insert_queued(service)
    for _ in range(2):
        response = service.client.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    assert service.client.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_job_cancelled_while_it_waits_leaves_nothing_in_the_store(service: LiveService) -> None:
    files = {"model": ("model.onnx", MODEL), "dataset": ("rows.parquet", PARQUET_FILE)}
    kept, cancelled = (service.client.post("/v1/jobs", files=files).json()["id"] for _ in range(2))
    # What an attempt had saved before the service was stopped.
    put_bytes(service.store, checkpoint_key(cancelled, 1), b"checkpoint")
    for _ in range(2):
        assert service.client.post(f"/v1/jobs/{cancelled}/cancel").json()["status"] == "cancelled"
        assert [path for path in service.left_behind() if f"/{cancelled}/" in path] == []
    assert len(service.store.list(job_prefix(kept))) == 2


def test_a_running_job_is_asked_to_stop(service: LiveService) -> None:
    job_id = insert_queued(service)
    claimed = None
    while claimed is None or claimed.id != job_id:
        claimed = service.jobs.claim_next(60, home="h", process="p")
        assert claimed is not None
    response = service.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (response.status_code, response.json()["status"], response.json()["cancel_requested"]) == (202, "cancelling", True)


@pytest.mark.parametrize("status", sorted(TERMINAL - {Status.CANCELLED}))
def test_an_ended_job_cannot_be_cancelled(service: LiveService, status: Status) -> None:
    job = service.insert_finished(status, {})
    response = service.client.post(f"/v1/jobs/{job.id}/cancel")
    assert (response.status_code, response.json()["code"]) == (409, "job_already_finished")
    assert service.client.get(f"/v1/jobs/{job.id}").json()["status"] == status


@pytest.mark.parametrize("path", ["", "/artifacts", "/artifacts/x", "/report"])
def test_an_unknown_job_is_a_404(service: LiveService, path: str) -> None:
    response = service.client.get(f"/v1/jobs/job_none{path}")
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (404, "job_not_found", "job_id")
