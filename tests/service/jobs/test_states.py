"""The table of transitions, and every repository write against it: from each state, only allowed ones are reached."""

from collections.abc import Callable
from datetime import timedelta
from itertools import product

import pytest

from compressor.protocol import Progress
from service.jobs.job import Job, JobInput, new_job
from service.jobs.repository import JobRepository, utc_now
from service.jobs.states import ALLOWED, LEASED, TERMINAL, Status, sources

WRITES: dict[str, Callable[[JobRepository, str], object]] = {
    "request_cancel": lambda repository, job_id: repository.request_cancel(job_id),
    "request_pause": lambda repository, job_id: repository.request_pause(job_id),
    "resume": lambda repository, job_id: repository.resume(job_id),
    "pause": lambda repository, job_id: repository.pause(job_id, 1),
    "claim_next": lambda repository, _: repository.claim_next(60, home="home", process="other"),
    "end_abandoned": lambda repository, _: repository.end_abandoned(),
    "release_dead": lambda repository, _: repository.release_dead("home", lambda _process: False),
    "renew": lambda repository, job_id: repository.renew(job_id, 1, 60, process="p"),
    "progress_validate": lambda repository, job_id: repository.update_progress(job_id, 1, Progress(phase="validate", progress=0.0), ""),
    "progress_fit": lambda repository, job_id: repository.update_progress(job_id, 1, Progress(phase="fit", progress=0.5), ""),
    "requeue": lambda repository, job_id: repository.requeue(job_id, 1),
    **{
        f"finish_{status}": lambda repository, job_id, status=status: repository.finish(job_id, 1, status)  # type: ignore[misc]
        for status in sorted(TERMINAL)
    },
}


def job_in(status: Status, *, lease_s: float = 60.0, attempts: int = 1, max_attempts: int = 3, log_tail: str = "") -> Job:
    """A job as it stands in `status` under fence 1."""
    job = new_job(config={}, inputs={"model": JobInput(ref="builtin:x")}, max_attempts=max_attempts)
    return job.model_copy(
        update={
            "status": status,
            "fence": 1,
            "attempts": attempts,
            "home": "home",
            "process": "p",
            "lease_until": utc_now() + timedelta(seconds=lease_s) if status in LEASED else None,
            "log_tail": log_tail,
        }
    )


def test_table_is_complete() -> None:
    assert set(ALLOWED) == set(Status)
    assert {Status.CANCELLED, Status.SUCCEEDED, Status.FAILED, Status.FAILED_GATE} == TERMINAL
    # From every state the end can be reached, and every state but the first is reached from another.
    for status in Status:
        assert status in TERMINAL or ALLOWED[status] & (TERMINAL | LEASED | {Status.QUEUED})
        assert status is Status.QUEUED or sources(status) - {status}


@pytest.mark.parametrize("write", list(WRITES))
def test_no_write_makes_a_forbidden_transition(repository: JobRepository, write: str) -> None:
    for source, lease_s, attempts in product(Status, (60.0, -60.0), (1, 3)):
        job = job_in(source, lease_s=lease_s, attempts=attempts)
        repository.insert(job)
        WRITES[write](repository, job.id)
        after = repository.get(job.id)
        assert after is not None
        assert after.status == source or after.status in ALLOWED[source]
        assert source in TERMINAL or after.finished == (after.finished_at is not None)
        if source in TERMINAL:
            assert after == job
        # Out of the way of the next claim.
        repository.request_cancel(job.id)
        repository.finish(job.id, after.fence, Status.CANCELLED)


def test_finish_walks_every_pair(repository: JobRepository) -> None:
    for source, target in product(Status, sorted(TERMINAL)):
        job = job_in(source)
        repository.insert(job)
        assert repository.finish(job.id, 1, target) == (source in LEASED and target in ALLOWED[source]), (source, target)
