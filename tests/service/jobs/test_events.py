"""Events on both databases: every change of status has one, in the same transaction; ids without gaps."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from compressor.errors import Diverged
from compressor.protocol import Progress
from service.jobs.events.event import NewEvent, metrics_event, phase_event, status_event
from service.jobs.events.repository import EventRepository
from service.jobs.job import new_job
from service.jobs.repository import JobRepository
from service.jobs.states import Status

PROGRESS = Progress(phase="fit", progress=0.5, eta_s=3.0, metrics={"accuracy": 0.875})


@pytest.fixture
def events(engine: Engine) -> EventRepository:
    return EventRepository(engine)


def statuses(events: EventRepository, job_id: str) -> list[tuple[int, str, str]]:
    return [(event.id, event.data["status"], event.level) for event in events.page(job_id, 0, 1000) if event.type == "status"]


def claimed(repository: JobRepository, *, max_attempts: int = 3, lease_s: float = 60) -> str:
    job = new_job(config={}, inputs={}, max_attempts=max_attempts)
    repository.insert(job)
    assert repository.claim_next(lease_s, home="h", process="p") is not None
    return job.id


def test_a_run_from_its_beginning_to_its_end(events: EventRepository, repository: JobRepository) -> None:
    job_id = claimed(repository)
    new = [status_event(Status.RUNNING), phase_event(PROGRESS), metrics_event(PROGRESS)]
    assert repository.update_progress(job_id, 1, PROGRESS, "", new)
    assert repository.update_progress(job_id, 1, PROGRESS, "")
    assert repository.update_progress(job_id, 1, PROGRESS, "", [NewEvent(level="warn", type="message", message="a 'quote' and ü")])
    assert repository.finish(job_id, 1, Status.SUCCEEDED, verdict="60 times smaller")
    found = events.page(job_id, 0, 100)
    assert [event.id for event in found] == list(range(1, 8))
    assert [event.type for event in found] == ["status", "status", "status", "phase", "metrics", "message", "status"]
    assert [event.data.get("status") for event in found if event.type == "status"] == ["queued", "validating", "running", "succeeded"]
    assert found[3].data == {"phase": "fit", "progress": 0.5, "eta_s": 3.0}
    assert (found[4].data["metrics"], found[4].message) == ({"accuracy": 0.875}, "accuracy 0.875")
    assert (found[5].level, found[5].message) == ("warn", "a 'quote' and ü")
    assert found[6].message == "60 times smaller"
    assert [event.created_at for event in found] == sorted(event.created_at for event in found)
    assert events.page(job_id, 2, 2) == found[2:4]
    assert events.page(job_id, 7, 2) == []
    assert repository.marks([job_id, "job_none"]) == {job_id: (Status.SUCCEEDED, 7)}
    assert repository.delete(job_id)
    assert events.page(job_id, 0, 100) == []


def test_a_runner_that_has_lost_its_job_writes_nothing(events: EventRepository, repository: JobRepository) -> None:
    job_id = claimed(repository)
    new = [metrics_event(PROGRESS)]
    assert not repository.update_progress(job_id, 2, PROGRESS, "", new)
    repository.request_cancel(job_id)
    assert not repository.update_progress(job_id, 1, PROGRESS, "", new)
    assert statuses(events, job_id) == [(1, "queued", "info"), (2, "validating", "info"), (3, "cancelling", "info")]
    assert repository.finish(job_id, 1, Status.CANCELLED)
    assert not repository.finish(job_id, 1, Status.CANCELLED)
    repository.request_cancel(job_id)
    assert statuses(events, job_id)[3:] == [(4, "cancelled", "info")]


def test_failures_are_of_their_own_level_and_say_why(events: EventRepository, repository: JobRepository) -> None:
    problem = Diverged("The loss is not finite.", suggestion="Lower the learning rate.").to_problem()
    job_id = claimed(repository)
    assert repository.requeue(job_id, 1, error=problem)
    assert repository.claim_next(60, home="h", process="p") is not None
    assert repository.requeue(job_id, 2)
    assert repository.claim_next(60, home="h", process="p") is not None
    assert repository.finish(job_id, 3, Status.FAILED, error=problem)
    found = [(event.data, event.level, event.message) for event in events.page(job_id, 2, 100)]
    why = ({"status": "queued", "code": "diverged"}, "warn", "The loss is not finite.")
    assert (found[0], found[4]) == (why, ({"status": "failed", "code": "diverged"}, "error", "The loss is not finite."))
    assert found[2] == ({"status": "queued"}, "info", "Waits for a worker.")
    gate = claimed(repository)
    assert repository.finish(gate, 1, Status.FAILED_GATE, error=problem, verdict="no")
    assert statuses(events, gate)[-1] == (3, "failed_gate", "warn")


def test_what_the_dispatcher_ends_has_its_event_too(events: EventRepository, repository: JobRepository) -> None:
    cancelled = claimed(repository, lease_s=-1)
    repository.request_cancel(cancelled)
    exhausted = claimed(repository, max_attempts=1, lease_s=-1)
    assert set(repository.end_abandoned()) == {cancelled, exhausted}
    assert statuses(events, cancelled)[-1] == (4, "cancelled", "info")
    assert statuses(events, exhausted)[-1] == (3, "failed", "error")


def test_two_writers_at_once_leave_no_gap(events: EventRepository, repository: JobRepository) -> None:
    job_id = claimed(repository)
    new = [metrics_event(PROGRESS)] * 3
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: repository.update_progress(job_id, 1, PROGRESS, "", new), range(20)))
    assert [event.id for event in events.page(job_id, 0, 1000)] == list(range(1, 63))
