"""The lease of a runner on a real table that is away for a moment."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from compressor.protocol import Progress
from service.jobs.events.repository import EventRepository
from service.jobs.job import Job
from service.jobs.states import Status
from service.worker.lease import LeaseHolder
from tests.service.worker.workplace import Workplace, small_settings


@contextmanager
def without_jobs(engine: Engine) -> Iterator[None]:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO away")
    yield
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO jobs")


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    workplace = Workplace(small_settings(tmp_path / "home"))
    yield workplace
    workplace.engine.dispose()


def claim(workplace: Workplace) -> Job:
    workplace.submit()
    job = workplace.repository.claim_next(60, home="home", process="p")
    assert job is not None
    return job


def test_a_report_that_could_not_be_written_is_written_later(workplace: Workplace) -> None:
    job = claim(workplace)
    lease = LeaseHolder(workplace.repository, job.id, job.fence, lease_s=10, renew_s=1, process="p")
    lease.report(Progress(phase="fit", progress=0.25), "the log")
    with without_jobs(workplace.engine), pytest.raises(OperationalError):
        asyncio.run(lease.flush())
    assert workplace.get(job.id).status is Status.VALIDATING
    asyncio.run(lease.flush())
    written = workplace.get(job.id)
    assert (written.status, written.phase, written.progress, written.log_tail) == (Status.RUNNING, "fit", 0.25, "the log")
    # Once only.
    assert workplace.repository.requeue(job.id, job.fence)
    asyncio.run(lease.flush())
    assert workplace.get(job.id).status is Status.QUEUED


def test_a_note_is_written_with_the_next_poll_and_once_only(workplace: Workplace) -> None:
    """Also before the trainer has said anything, and where two ask for it at the same time."""
    job = claim(workplace)
    lease = LeaseHolder(workplace.repository, job.id, job.fence, lease_s=10, renew_s=1, process="p")
    lease.note("info", "Fetches the model.")

    async def flush_twice() -> None:
        await asyncio.gather(lease.flush(), lease.flush())

    asyncio.run(flush_twice())
    messages = [event.message for event in EventRepository(workplace.engine).page(job.id, 0, 9) if event.type == "message"]
    assert (messages, lease.unwritten_events()) == (["Fetches the model."], [])


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED_GATE])
def test_a_result_counts_though_no_progress_was_written(workplace: Workplace, status: Status) -> None:
    job = claim(workplace)
    assert workplace.get(job.id).status is Status.VALIDATING
    assert workplace.repository.finish(job.id, job.fence, status, verdict="smaller")
    assert (workplace.get(job.id).status, workplace.get(job.id).verdict) == (status, "smaller")
