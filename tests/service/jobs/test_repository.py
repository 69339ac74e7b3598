"""The queue on both databases: claims, leases, fences, endings."""

import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, event

from compressor.errors import Diverged
from compressor.protocol import Progress
from service.jobs.events.event import NewEvent
from service.jobs.events.repository import EventRepository
from service.jobs.job import Artifact, Job, JobInput, new_job
from service.jobs.quotas.repository import usage_of
from service.jobs.repository import JobFilter, JobRepository, LeaseState, utc_now
from service.jobs.states import Status
from service.storage.keys import fetched_key

EXPIRED_S = -1.0


def insert_job(repository: JobRepository, **values: int) -> Job:
    job = new_job(config={"seed": 3, "thresholds": [0.0, 1.5]}, inputs={"model": JobInput(key="k", bytes=2**40)}, **values)
    repository.insert(job)
    return job


def claim(repository: JobRepository, lease_s: float = 60.0, process: str = "p") -> Job:
    job = repository.claim_next(lease_s, home="home", process=process)
    assert job is not None
    return job


def read(repository: JobRepository, job_id: str) -> Job:
    job = repository.get(job_id)
    assert job is not None
    return job


def test_insert_and_get(repository: JobRepository) -> None:
    job = insert_job(repository)
    assert repository.get(job.id) == job
    assert repository.get("job_0") is None


def test_what_was_fetched_is_recorded_by_the_owner_of_the_job_alone(repository: JobRepository) -> None:
    insert_job(repository)
    first = claim(repository, EXPIRED_S)
    second = claim(repository)
    key = fetched_key(second.id, second.fence, "model", ".onnx")
    fetched = {"model": JobInput(key=key, ref="https://example.org/model.onnx", bytes=3, sha256="ab")}
    assert not repository.record_inputs(first.model_copy(update={"inputs": {}}))
    assert repository.record_inputs(second.model_copy(update={"inputs": fetched}))
    assert read(repository, second.id).inputs == fetched
    with repository.engine.connect() as connection:
        assert usage_of(connection, second.owner).stored_bytes == 3
    told = [NewEvent(type="message", message="Fetches the model.")]
    assert not repository.add_events(first.id, first.fence, told)
    assert repository.add_events(second.id, second.fence, told)
    assert [event.message for event in EventRepository(repository.engine).page(second.id, 0, 9)][-1] == "Fetches the model."
    assert repository.finish(second.id, second.fence, Status.FAILED)
    assert not repository.record_inputs(second)


def test_list_recent_pages_from_new_to_old(repository: JobRepository) -> None:
    ids = [insert_job(repository).id for _ in range(5)]
    assert sorted(ids) == ids
    newest = ids[::-1]
    assert [job.id for job in repository.list_recent(3)] == newest[:3]
    assert [job.id for job in repository.list_recent(3, after=newest[2])] == newest[3:]


def test_list_recent_takes_only_what_is_wanted(repository: JobRepository) -> None:
    tagged, other = ({"project": value, "a.b:c/d-e_F": "with 'quotes', \\ and ä"} for value in ("x", "y"))
    jobs = [new_job(config={}, inputs={}, kind=kind, metadata=pairs) for kind in ("compress", "inspect") for pairs in (tagged, other, {})]
    for job in jobs:
        repository.insert(job)
    repository.request_cancel(jobs[0].id)
    assert [read(repository, job.id).metadata for job in jobs] == [tagged, other, {}] * 2

    def wanted(*places: int, limit: int = 9, **given: Any) -> bool:
        return [job.id for job in repository.list_recent(limit, wanted=JobFilter(**given))] == [jobs[place].id for place in places]

    assert wanted(5, 4, 3, 2, 1, 0)
    assert wanted(0, statuses=[Status.CANCELLED])
    assert wanted(5, 4, 3, 2, 1, 0, statuses=[Status.CANCELLED, Status.QUEUED])
    assert wanted(5, 4, 3, kind="inspect")
    assert wanted(3, 0, metadata={"project": "x"})
    assert wanted(3, limit=1, metadata={"project": "x"})
    assert wanted(4, 3, 1, 0, metadata={"a.b:c/d-e_F": tagged["a.b:c/d-e_F"]})
    assert wanted(4, kind="inspect", metadata=other, statuses=[Status.QUEUED])
    assert wanted(metadata={"project": "x", "none": ""})
    assert [job.id for job in repository.list_recent(9, after=jobs[3].id, wanted=JobFilter(metadata=tagged))] == [jobs[0].id]


def test_only_a_finished_job_is_deleted(repository: JobRepository) -> None:
    job, child = insert_job(repository), new_job(config={}, inputs={}, kind="select", parent_id="parent")
    assert not repository.delete(job.id)
    repository.request_cancel(job.id)
    assert repository.marks([job.id, child.id]) == {job.id: (Status.CANCELLED, 2)}
    assert repository.delete(job.id)
    assert not repository.delete(job.id)
    assert repository.get(job.id) is None
    assert not repository.has_unfinished_selections("parent")
    repository.insert(child)
    assert repository.has_unfinished_selections("parent")
    repository.request_cancel(child.id)
    assert not repository.has_unfinished_selections("parent")


def test_old_jobs_are_those_that_finished_and_nobody_reads_from(repository: JobRepository) -> None:
    done, parent, waiting = (insert_job(repository) for _ in range(3))
    child = new_job(config={}, inputs={}, kind="select", parent_id=parent.id)
    repository.insert(child)
    for job in (done, parent):
        repository.request_cancel(job.id)
    assert repository.finished_before(60) == []
    assert repository.finished_before(-60) == [done.id]
    repository.request_cancel(child.id)
    assert set(repository.finished_before(-60)) == {done.id, parent.id, child.id}
    assert waiting.id not in repository.finished_before(-60)


@pytest.mark.parametrize(
    ("given", "valid"),
    [
        ({"key": "k"}, True),
        ({"ref": "builtin:digits"}, True),
        ({"key": "k", "ref": "id:model_0"}, True),
        ({"ref": "https://example.org/m.onnx"}, True),
        ({"key": "k", "ref": "https://example.org/m.onnx"}, True),
        ({}, False),
        ({"key": "k", "ref": "file:/x"}, False),
        ({"ref": "id:model_0"}, False),
    ],
)
def test_an_input_has_one_source(given: dict[str, str], valid: bool) -> None:
    with nullcontext() if valid else pytest.raises(ValidationError, match="an input has"):
        assert JobInput.model_validate(given).model_dump(exclude_none=True) == given


def test_a_finish_is_estimated_from_the_moment_of_the_report(repository: JobRepository) -> None:
    job = insert_job(repository)
    claim(repository)
    assert repository.update_progress(job.id, 1, Progress(phase="fit", progress=0.5, eta_s=90.0), "")
    estimated = read(repository, job.id).estimated_finish
    assert estimated is not None
    assert abs((estimated - datetime.now(UTC)).total_seconds() - 90) < 10
    assert repository.update_progress(job.id, 1, Progress(phase="fit", progress=0.5, eta_s=1e300), "")
    assert repository.update_progress(job.id, 1, Progress(phase="fit", progress=0.5), "")
    assert read(repository, job.id).estimated_finish is None
    assert repository.update_progress(job.id, 1, Progress(phase="fit", progress=0.5, eta_s=90.0), "")
    assert repository.finish(job.id, 1, Status.SUCCEEDED)
    assert (read(repository, job.id).estimated_finish, read(repository, job.id).eta_s) == (None, None)


def test_claims_oldest_first_each_once(repository: JobRepository) -> None:
    ids = sorted(insert_job(repository).id for _ in range(3))
    claimed = [claim(repository) for _ in ids]
    assert [job.id for job in claimed] == ids
    assert {(job.status, job.fence, job.attempts, job.process) for job in claimed} == {(Status.VALIDATING, 1, 1, "p")}
    assert repository.claim_next(60, home="home", process="p") is None
    assert repository.counts() == {Status.VALIDATING: 3}


def test_expired_lease_is_taken_over_and_the_late_result_dropped(repository: JobRepository) -> None:
    job = insert_job(repository)
    first = claim(repository, EXPIRED_S)
    assert repository.read_lease(job.id, 1) == LeaseState(held=True, expired=True)
    second = claim(repository)
    assert (first.fence, second.fence, second.attempts, second.started_at) == (1, 2, 2, first.started_at)
    progress = Progress(phase="fit", progress=0.4, eta_s=9.0, metrics={"accuracy": 0.5})
    assert not repository.update_progress(job.id, 1, progress, "late")
    assert not repository.renew(job.id, 1, 60, process="p").held
    assert not repository.read_lease(job.id, 1).held
    assert not repository.finish(job.id, 1, Status.FAILED)
    assert not repository.requeue(job.id, 1)
    assert read(repository, job.id) == second
    assert repository.update_progress(job.id, 2, progress, "log")
    artifact = Artifact(name="model.onnx", key="k", bytes=3, sha256="00", media_type="application/octet-stream")
    assert repository.finish(job.id, 2, Status.SUCCEEDED, artifacts=[artifact], verdict="smaller")
    done = read(repository, job.id)
    assert (done.status, done.progress, done.phase, done.artifacts, done.verdict) == ("succeeded", 1.0, "fit", [artifact], "smaller")
    assert done.metrics == {"accuracy": 0.5}
    assert not repository.finish(job.id, 2, Status.FAILED)


def test_renewed_lease_is_not_taken_over(repository: JobRepository) -> None:
    job = insert_job(repository)
    claim(repository, EXPIRED_S)
    assert repository.renew(job.id, 1, 60, process="runner") == LeaseState(held=True)
    assert repository.claim_next(60, home="home", process="p") is None
    assert read(repository, job.id).process == "runner"


def test_failure_keeps_the_problem(repository: JobRepository) -> None:
    job = insert_job(repository)
    claim(repository)
    problem = Diverged("The loss is not finite.", suggestion="Lower the learning rate.").to_problem()
    assert repository.finish(job.id, 1, Status.FAILED, error=problem, log_tail="nan")
    failed = read(repository, job.id)
    assert (failed.error, failed.log_tail, failed.lease_until) == (problem, "nan", None)


@pytest.mark.parametrize("count_attempt", [False, True])
def test_requeue(repository: JobRepository, count_attempt: bool) -> None:
    job = insert_job(repository)
    claim(repository)
    error = Diverged("The loss is not finite.").to_problem() if count_attempt else None
    assert repository.requeue(job.id, 1, error=error)
    again = claim(repository)
    assert (again.fence, again.attempts) == (2, 2 if count_attempt else 1)


def test_cancel(repository: JobRepository) -> None:
    queued, running = insert_job(repository), insert_job(repository)
    first = claim(repository)
    waiting = queued if first.id == running.id else running
    cancelled = repository.request_cancel(waiting.id)
    assert cancelled is not None
    assert cancelled.status is Status.CANCELLED
    assert cancelled.finished_at is not None
    cancelling = repository.request_cancel(first.id)
    assert cancelling is not None
    assert (cancelling.status, cancelling.finished_at) == (Status.CANCELLING, None)
    assert repository.read_lease(first.id, 1) == LeaseState(held=True, cancel_requested=True)
    assert repository.renew(first.id, 1, 60, process="p").cancel_requested
    assert not repository.update_progress(first.id, 1, Progress(phase="fit", progress=0.1), "")
    assert not repository.finish(first.id, 1, Status.SUCCEEDED)
    assert not repository.requeue(first.id, 1)
    assert repository.finish(first.id, 1, Status.CANCELLED)
    assert repository.request_cancel(first.id) == read(repository, first.id)
    assert repository.request_cancel("job_0") is None


def test_end_abandoned(repository: JobRepository) -> None:
    cancelling = insert_job(repository)
    claim(repository, EXPIRED_S)
    repository.request_cancel(cancelling.id)
    crashing = insert_job(repository, max_attempts=1)
    assert repository.update_progress(crashing.id, claim(repository).fence, Progress(phase="fit", progress=0.1), "line 1\nline 2")
    repository.renew(crashing.id, 1, EXPIRED_S, process="p")
    running = insert_job(repository)
    claim(repository)
    assert repository.claim_next(60, home="home", process="p") is None
    assert repository.end_abandoned() == [cancelling.id, crashing.id]
    assert read(repository, cancelling.id).status is Status.CANCELLED
    failed = read(repository, crashing.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (Status.FAILED, "trainer_crashed")
    assert "line 1\nline 2" in failed.error.detail
    assert read(repository, running.id).status is Status.VALIDATING
    assert repository.end_abandoned() == []


def test_release_dead_frees_only_dead_processes_of_its_home(repository: JobRepository) -> None:
    jobs = [insert_job(repository) for _ in range(3)]
    dead, alive = claim(repository, process="dead"), claim(repository, process="alive")
    foreign = repository.claim_next(60, home="elsewhere", process="dead")
    assert foreign is not None
    assert repository.release_dead("home", lambda process: process == "alive") == 1
    assert repository.release_dead("home", lambda process: process == "alive") == 0
    again = claim(repository)
    assert (again.id, again.fence) == (dead.id, 2)
    assert repository.claim_next(60, home="home", process="p") is None
    assert {alive.id, foreign.id, dead.id} == {job.id for job in jobs}


def test_lease_time_is_the_database_clock_on_postgresql_and_the_given_one_on_sqlite(engine: Engine) -> None:
    late = JobRepository(engine, clock=lambda: utc_now() + timedelta(hours=1))
    job = insert_job(late)
    claim(JobRepository(engine), 60)
    taken = late.claim_next(60, home="home", process="p")
    if engine.dialect.name == "postgresql":
        assert taken is None
        lease_until = read(late, job.id).lease_until
        assert lease_until is not None
        assert abs((lease_until - datetime.now(UTC)).total_seconds() - 60) < 10
    else:
        assert taken is not None
        assert taken.fence == 2


def test_lease_ends_on_the_microsecond(sqlite_engine: Engine) -> None:
    now = utc_now()
    repository = JobRepository(sqlite_engine, clock=lambda: now)
    job = insert_job(repository)
    claim(repository, 10)
    now += timedelta(seconds=10)
    assert repository.claim_next(10, home="home", process="p") is None
    now += timedelta(microseconds=1)
    assert claim(repository).id == job.id


def test_a_claim_reads_only_what_is_open(sqlite_engine: Engine) -> None:
    repository = JobRepository(sqlite_engine)
    statements: list[str] = []
    event.listen(sqlite_engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: statements.append(statement))
    insert_job(repository)
    claim(repository)
    (update,) = [statement for statement in statements if statement.startswith("UPDATE")]
    with sqlite_engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {update}", tuple("x" for _ in range(update.count("?")))).all()
    assert any("ix_jobs_open" in row[3] for row in plan), plan
    assert not any("TEMP B-TREE" in row[3] for row in plan), plan


def test_four_processes_claim_every_job_exactly_once(database_url: str, repository: JobRepository) -> None:
    ids = {insert_job(repository).id for _ in range(200)}
    command = [sys.executable, "-m", "tests.service.jobs.claim_all", database_url]
    processes = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for n in range(4)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    claimed = [line for output, _ in outputs for line in output.split()]
    assert len(claimed) == len(ids)
    assert set(claimed) == ids
    assert repository.counts() == {Status.SUCCEEDED: 200}
    done = repository.list_recent(200)
    assert {(job.attempts, job.fence - job.id.endswith("0")) for job in done} == {(1, 1)}
