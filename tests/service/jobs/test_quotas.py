"""What an owner may have, on both databases: jobs and bytes where a job comes in, running jobs where one is claimed."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from service.jobs.idempotency.repository import IdempotencyRepository, KeyRecord
from service.jobs.job import Artifact, Job, JobInput, new_job, new_job_id
from service.jobs.quotas.quota import QuotaReached, Quotas, Usage, check_room
from service.jobs.quotas.repository import usage_of
from service.jobs.repository import JobRepository
from service.jobs.states import Status
from service.storage.keys import input_key

AT_ONCE = 20
COUNTS = st.integers(0, 5)


def job_of(owner: str, num_bytes: int = 0, **values: Any) -> Job:
    job_id = new_job_id()
    inputs = {"model": JobInput(key=input_key(job_id, "model", ".onnx"), bytes=num_bytes), "dataset": JobInput(ref="builtin:digits")}
    return new_job(job_id=job_id, owner=owner, config={}, inputs=inputs, **values)


def used(repository: JobRepository, owner: str) -> Usage:
    with repository.engine.connect() as connection:
        return usage_of(connection, owner)


@given(COUNTS, COUNTS, COUNTS, st.none() | COUNTS, st.none() | COUNTS)
def test_a_job_fits_up_to_the_limit(jobs: int, stored: int, new: int, max_jobs: int | None, max_bytes: int | None) -> None:
    refused = [max_jobs is not None and jobs + 1 > max_jobs, max_bytes is not None and stored + new > max_bytes]
    usage, quotas = Usage(jobs, stored), Quotas(max_queued_jobs=max_jobs, max_stored_bytes=max_bytes)
    if not any(refused):
        check_room(usage, quotas, new)
        return
    with pytest.raises(QuotaReached) as refusal:
        check_room(usage, quotas, new)
    first = ("max_queued_jobs", jobs, max_jobs) if refused[0] else ("max_stored_bytes", stored, max_bytes)
    assert (refusal.value.quota, refusal.value.used, refusal.value.limit) == first


def test_jobs_count_until_they_have_finished_and_only_the_owners(repository: JobRepository) -> None:
    quotas = Quotas(max_queued_jobs=2)
    first, second = job_of("alice"), job_of("alice")
    for job in (first, second, *(job_of("bob") for _ in range(3))):
        repository.insert(job, Quotas(max_queued_jobs=3))
    refused = job_of("alice")
    with pytest.raises(QuotaReached, match="max_queued_jobs: 2 of 2"):
        repository.insert(refused, quotas)
    assert repository.get(refused.id) is None
    with pytest.raises(QuotaReached):
        repository.check_room("alice", quotas)
    # A paused job counts: resumed, it is in the queue again.
    repository.request_pause(first.id)
    with pytest.raises(QuotaReached):
        repository.insert(refused, quotas)
    repository.request_cancel(first.id)
    repository.check_room("alice", quotas)
    repository.insert(refused, quotas)
    assert used(repository, "alice") == Usage(2, 0)


def test_bytes_are_those_of_own_inputs_and_of_artifacts_until_the_job_is_deleted(repository: JobRepository) -> None:
    quotas = Quotas(max_stored_bytes=2**40)
    job = job_of("alice", 2**40 - 100)
    repository.insert(job, quotas)
    # What a selection reads is its parent's, and what a reference leads to the service's.
    child = new_job(owner="alice", config={}, parent_id=job.id, inputs={**job.inputs, "test": JobInput(ref="file:/x", bytes=2**40)})
    repository.insert(child, quotas)
    assert used(repository, "alice") == Usage(2, 2**40 - 100)
    claimed = repository.claim_next(60, home="h", process="p")
    assert claimed is not None
    artifacts = [Artifact(name=name, key=name, bytes=49, sha256="00", media_type="x") for name in ("a", "b")]
    assert repository.finish(job.id, claimed.fence, Status.SUCCEEDED, artifacts=artifacts)
    assert used(repository, "alice") == Usage(1, 2**40 - 2)
    with pytest.raises(QuotaReached) as refusal:
        repository.insert(job_of("alice", 3), quotas)
    assert (refusal.value.quota, refusal.value.used, refusal.value.limit) == ("max_stored_bytes", 2**40 - 2, 2**40)
    repository.insert(job_of("alice", 2), quotas)
    repository.request_cancel(child.id)
    assert repository.delete(job.id)
    assert used(repository, "alice") == Usage(1, 2)


def test_a_job_that_does_not_fit_leaves_its_idempotency_key_free(engine: Engine, repository: JobRepository) -> None:
    keys, job = IdempotencyRepository(engine), job_of("alice")
    keys.reserve("alice", "k", job.id, 60)
    with pytest.raises(QuotaReached):
        keys.insert_job("k", "f", job, 60, Quotas(max_queued_jobs=0))
    assert repository.get(job.id) is None
    assert keys.reserve("alice", "k", "other", 60) == KeyRecord(job.id)
    keys.release("alice", "k", job.id)
    assert keys.reserve("alice", "k", "other", 60) == KeyRecord("other")


@pytest.mark.parametrize("quotas", [Quotas(max_queued_jobs=5), Quotas(max_stored_bytes=509)])
def test_of_many_at_once_no_more_come_in_than_fit(repository: JobRepository, quotas: Quotas) -> None:
    together = Barrier(AT_ONCE)

    def insert(number: int) -> bool:
        job = job_of("alice", 100)
        together.wait()
        try:
            if number % 2:
                repository.insert(job, quotas)
            else:
                keys = IdempotencyRepository(repository.engine)
                keys.reserve("alice", str(number), job.id, 60)
                assert keys.insert_job(str(number), "f", job, 60, quotas)
        except QuotaReached:
            return False
        return True

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert sum(pool.map(insert, range(AT_ONCE))) == 5
    assert used(repository, "alice") == Usage(5, 500)


def claim(repository: JobRepository, lease_s: float = 60.0) -> Job | None:
    return repository.claim_next(lease_s, home="h", process="p")


def test_a_job_over_the_limit_waits_and_others_go_past_it(repository: JobRepository) -> None:
    alices = [job_of("alice", max_running_jobs=2) for _ in range(4)]
    bob, free = job_of("bob", max_running_jobs=1), job_of("carol")
    for job in (*alices, bob, free):
        repository.insert(job)
    claimed = [claim(repository) for _ in range(5)]
    assert [job and job.id for job in claimed] == [alices[0].id, alices[1].id, bob.id, free.id, None]
    assert repository.finish(alices[1].id, 1, Status.FAILED)
    third = claim(repository)
    assert third is not None
    assert third.id == alices[2].id
    assert claim(repository) is None
    # What is being paused or cancelled has its slot until its runner has left.
    repository.request_cancel(alices[0].id)
    repository.request_pause(alices[2].id)
    assert claim(repository) is None
    assert repository.pause(alices[2].id, 1)
    fourth = claim(repository)
    assert fourth is not None
    assert fourth.id == alices[3].id


def test_a_runner_that_is_gone_keeps_no_slot(repository: JobRepository) -> None:
    first, second = job_of("alice", max_running_jobs=1), job_of("alice", max_running_jobs=1)
    for job in (first, second):
        repository.insert(job)
    assert claim(repository, -1) is not None
    again = claim(repository)
    assert again is not None
    assert (again.id, again.fence) == (first.id, 2)
    assert claim(repository) is None


def test_four_processes_keep_to_the_limit(database_url: str, repository: JobRepository) -> None:
    for number in range(120):
        repository.insert(job_of("alice" if number % 3 else "bob", max_running_jobs=1))
    held: list[str] = []
    command = [sys.executable, "-m", "tests.service.jobs.claim_limited", database_url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        output, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        held += output.split()
    assert len(held) == 120
    assert set(held) == {"1"}
    assert repository.counts() == {Status.SUCCEEDED: 120}


def test_the_limit_is_counted_over_what_is_held_alone(sqlite_engine: Engine) -> None:
    repository = JobRepository(sqlite_engine)
    statements: list[str] = []
    event.listen(sqlite_engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: statements.append(statement))
    repository.insert(job_of("alice", max_running_jobs=1), Quotas(max_queued_jobs=9))
    claim(repository)
    claims = [statement for statement in statements if statement.startswith("UPDATE")]
    counts = [statement for statement in statements if statement.startswith("SELECT count")]
    assert (len(claims), len(counts)) == (1, 1)
    with sqlite_engine.connect() as connection:
        plans = [
            str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", tuple("x" for _ in range(statement.count("?")))).all())
            for statement in (*claims, *counts)
        ]
    assert "ix_jobs_held" in plans[0]
    assert "ix_jobs_owner_id" in plans[1]
