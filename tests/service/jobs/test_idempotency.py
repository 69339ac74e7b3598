"""Idempotency keys on both databases: who has a key, for how long, and what becomes of it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from service.jobs.clock import utc_now
from service.jobs.idempotency.repository import IdempotencyRepository, KeyRecord
from service.jobs.job import LOCAL as OWNER
from service.jobs.job import Job, new_job
from service.jobs.repository import JobRepository
from service.jobs.states import Status


@pytest.fixture
def keys(engine: Engine) -> IdempotencyRepository:
    return IdempotencyRepository(engine)


def job() -> Job:
    return new_job(config={}, inputs={})


def num_rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM idempotency_keys")).scalar_one())


def test_the_first_has_the_key_until_it_lets_it_go(keys: IdempotencyRepository) -> None:
    assert keys.reserve(OWNER, "k", "a", 60) == KeyRecord("a")
    assert keys.reserve(OWNER, "k", "b", 60) == KeyRecord("a")
    assert keys.reserve(OWNER, "K", "b", 60) == KeyRecord("b")
    assert keys.renew(OWNER, "k", "a", 60)
    assert not keys.renew(OWNER, "k", "b", 60)
    keys.release(OWNER, "k", "b")
    assert keys.reserve(OWNER, "k", "c", 60) == KeyRecord("a")
    keys.release(OWNER, "k", "a")
    assert keys.reserve(OWNER, "k", "c", 60) == KeyRecord("c")


def test_a_key_is_its_owners(engine: Engine, keys: IdempotencyRepository) -> None:
    assert keys.reserve("alice", "k", "a", 60) == KeyRecord("a")
    assert keys.reserve("bob", "k", "b", 60) == KeyRecord("b")
    assert not keys.renew("bob", "k", "a", 60)
    keys.release("bob", "k", "a")
    keys.release("bob", "k", "b")
    assert keys.reserve("alice", "k", "c", 60) == KeyRecord("a")
    assert keys.reserve("carol", "old", "x", -1) == KeyRecord("x")
    keys.reserve("dave", "other", "y", 60)
    assert num_rows(engine) == 2


def test_a_job_and_its_fingerprint_come_together(keys: IdempotencyRepository, repository: JobRepository) -> None:
    first, second = job(), job()
    assert keys.reserve(OWNER, "k", first.id, 60) == KeyRecord(first.id)
    assert not keys.insert_job("k", "f", second, 60)
    assert repository.get(second.id) is None
    assert keys.insert_job("k", "f", first, 60)
    assert repository.get(first.id) == first
    assert keys.reserve(OWNER, "k", second.id, 60) == KeyRecord(first.id, "f")
    # It is no longer to be released, renewed or taken.
    keys.release(OWNER, "k", first.id)
    assert not keys.renew(OWNER, "k", first.id, 60)
    assert not keys.insert_job("k", "g", first, 60)
    assert keys.reserve(OWNER, "k", second.id, 60) == KeyRecord(first.id, "f")


def test_a_receiver_that_has_died_does_not_keep_the_key(keys: IdempotencyRepository, repository: JobRepository) -> None:
    dead, alive = job(), job()
    assert keys.reserve(OWNER, "k", dead.id, -1) == KeyRecord(dead.id)
    assert keys.reserve(OWNER, "k", alive.id, 60) == KeyRecord(alive.id)
    # It was only slow, and learns of it.
    assert not keys.insert_job("k", "f", dead, 60)
    assert repository.get(dead.id) is None
    assert keys.insert_job("k", "f", alive, 60)


def test_keys_expire_and_are_swept(engine: Engine, keys: IdempotencyRepository) -> None:
    for number in range(150):
        assert keys.reserve(OWNER, f"old {number}", "x", -1) == KeyRecord("x")
    done = job()
    keys.reserve(OWNER, "done", done.id, 60)
    assert keys.insert_job("done", "f", done, -1)
    assert keys.reserve(OWNER, "done", "b", 60) == KeyRecord("b")
    assert num_rows(engine) <= 51


def test_a_key_goes_with_its_job(engine: Engine, keys: IdempotencyRepository, repository: JobRepository) -> None:
    done = job().model_copy(update={"status": Status.FAILED})
    keys.reserve(OWNER, "k", done.id, 60)
    keys.insert_job("k", "f", done, 60)
    assert repository.delete(done.id)
    assert num_rows(engine) == 0


def test_expiry_is_by_the_clock_that_is_given_on_sqlite(sqlite_engine: Engine) -> None:
    IdempotencyRepository(sqlite_engine).reserve(OWNER, "k", "a", 3600)
    late = IdempotencyRepository(sqlite_engine, clock=lambda: utc_now() + timedelta(hours=2))
    assert late.reserve(OWNER, "k", "b", 60) == KeyRecord("b")


def test_of_many_at_once_one_has_the_key(keys: IdempotencyRepository) -> None:
    for expired in (False, True):
        if expired:
            keys.reserve(OWNER, "expired", "old", -1)
        key = "expired" if expired else "new"
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda number, key=key: keys.reserve(OWNER, key, str(number), 60), range(24)))  # type: ignore[misc]
        assert len({record.job_id for record in found}) == 1
        assert found[0].job_id != "old"
