"""What a client can ask of a job, in every state that it can be in: each cell is a test."""

from datetime import timedelta
from itertools import product

import pytest

from service.jobs.clock import utc_now
from service.jobs.job import Job, JobInput, new_job
from service.jobs.states import ALLOWED, LEASED, Status
from service.storage.keys import input_key
from tests.service.api.live import LiveService
from tests.service.storage.objects import put_bytes

FINISHED, NOT_FINISHED = "job_already_finished", "job_not_finished"
CANCELLING, PAUSING = "job_being_cancelled", "job_being_paused"
NEW, GONE, SAME = "a new job", "gone", "unchanged"
VERBS = ("cancel", "pause", "resume", "retry", "delete")
# What comes of it: a state, one of the words above, or the code of the 409.
TABLE: dict[Status, tuple[Status | str, ...]] = {
    #                    cancel             pause           resume         retry         delete
    Status.QUEUED:      (Status.CANCELLED,  Status.PAUSED,  SAME,          NOT_FINISHED, NOT_FINISHED),
    Status.VALIDATING:  (Status.CANCELLING, Status.PAUSING, SAME,          NOT_FINISHED, NOT_FINISHED),
    Status.RUNNING:     (Status.CANCELLING, Status.PAUSING, SAME,          NOT_FINISHED, NOT_FINISHED),
    Status.PAUSING:     (Status.CANCELLING, SAME,           PAUSING,       NOT_FINISHED, NOT_FINISHED),
    Status.PAUSED:      (Status.CANCELLED,  SAME,           Status.QUEUED, NOT_FINISHED, NOT_FINISHED),
    Status.CANCELLING:  (SAME,              CANCELLING,     CANCELLING,    NOT_FINISHED, NOT_FINISHED),
    Status.CANCELLED:   (SAME,              FINISHED,       FINISHED,      NEW,          GONE),
    Status.SUCCEEDED:   (FINISHED,          FINISHED,       FINISHED,      FINISHED,     GONE),
    Status.FAILED:      (FINISHED,          FINISHED,       FINISHED,      NEW,          GONE),
    Status.FAILED_GATE: (FINISHED,          FINISHED,       FINISHED,      NEW,          GONE),
}  # fmt: skip


def insert_in(service: LiveService, status: Status) -> Job:
    job = new_job(config={}, inputs={})
    key = input_key(job.id, "model", ".onnx")
    put_bytes(service.store, key, b"model")
    values = {
        "status": status,
        "fence": 1,
        "inputs": {"model": JobInput(key=key)},
        "lease_until": utc_now() + timedelta(hours=1) if status in LEASED else None,
    }
    job = job.model_copy(update=values)
    service.jobs.insert(job)
    return job


@pytest.mark.parametrize(("status", "verb"), list(product(Status, VERBS)))
def test_every_verb_in_every_state(service: LiveService, status: Status, verb: str) -> None:
    expected = TABLE[status][VERBS.index(verb)]
    job = insert_in(service, status)
    path = f"/v1/jobs/{job.id}"
    ask = (lambda: service.client.delete(path)) if verb == "delete" else (lambda: service.client.post(f"{path}/{verb}"))
    response = ask()
    after = service.jobs.get(job.id)
    if expected == GONE:
        assert (response.status_code, after, service.store.list(f"jobs/{job.id}")) == (204, None, [])
        return
    assert after is not None
    if expected == NEW:
        assert (response.status_code, response.json()["status"], response.json()["retry_of"], after) == (202, "queued", job.id, job)
    elif isinstance(expected, Status):
        assert (response.status_code, response.json()["status"], after.status) == (202, expected, expected)
        assert expected in ALLOWED[status]
        assert service.events_of(job.id)[-1].data["status"] == expected
        # Sent again, as after a lost answer, it changes nothing more.
        assert ask().status_code == 202
        assert service.jobs.get(job.id) == after
        assert len(service.events_of(job.id)) == 2
    elif expected == SAME:
        assert (response.status_code, response.json()["status"], after) == (202, status, job)
    else:
        assert (response.status_code, response.json()["code"], response.json()["param"], after) == (409, expected, "job_id", job)
        assert response.json()["suggestion"]
        assert len(service.events_of(job.id)) == 1
