"""`IdempotencyRepository`: all SQL about idempotency keys. The table's primary key decides between processes; nothing is held in memory.

A key is its owner's: others may draw the same one.
A row stands for a request. While it is received it has no fingerprint and expires soon, unless its receiver renews it, so that one that has
died does not keep the key. With the job, in one transaction, comes the fingerprint, and from then on the row stays as long as keys do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, delete, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from service.jobs.clock import DatabaseClock, utc_now
from service.jobs.job import Job
from service.jobs.quotas.quota import NO_QUOTAS, Quotas
from service.jobs.repository import insert_job
from service.jobs.tables import idempotency_keys as keys

SWEPT_AT_ONCE = 100


@dataclass(frozen=True)
class KeyRecord:
    """The request that has a key, by the id of its job; without a fingerprint it is still being received."""

    job_id: str
    fingerprint: str | None = None


class IdempotencyRepository:
    """Synchronous; safe to use from several threads and processes."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._now = DatabaseClock(engine, clock)

    def reserve(self, owner: str, key: str, job_id: str, lease_s: float) -> KeyRecord:
        """The request that has the key now: the one for `job_id`, unless an earlier one has it."""
        self.sweep()
        own = and_(keys.c.owner == owner, keys.c.key == key)
        while True:
            try:
                with self._engine.begin() as connection:
                    connection.execute(delete(keys).where(own, keys.c.expires_at < self._now()))
                    connection.execute(insert(keys).values(owner=owner, key=key, job_id=job_id, expires_at=self._now(lease_s)))
                return KeyRecord(job_id)
            except IntegrityError:
                with self._engine.begin() as connection:
                    row = connection.execute(select(keys.c.job_id, keys.c.fingerprint).where(own)).one_or_none()
                # None where it was released in between.
                if row is not None:
                    return KeyRecord(*row)

    def renew(self, owner: str, key: str, job_id: str, lease_s: float) -> bool:
        """False where the key has gone to another request."""
        return self._write(_received(owner, key, job_id), expires_at=self._now(lease_s))

    def release(self, owner: str, key: str, job_id: str) -> None:
        """Nothing came of the request: the key is free."""
        with self._engine.begin() as connection:
            connection.execute(delete(keys).where(_received(owner, key, job_id)))

    def insert_job(self, key: str, fingerprint: str, job: Job, ttl_s: float, quotas: Quotas = NO_QUOTAS) -> bool:
        """Inserts the job and keeps the key of its owner for it, both or neither; False where the key has gone to another request.

        Raises: QuotaReached where the job does not fit beside the others of its owner.
        """
        statement = update(keys).where(_received(job.owner, key, job.id)).values(fingerprint=fingerprint, expires_at=self._now(ttl_s))
        with self._engine.begin() as connection:
            if connection.execute(statement).rowcount != 1:
                return False
            insert_job(connection, job, quotas)
        return True

    def sweep(self) -> None:
        """Removes some of the keys that have expired."""
        # In one order and past what others have locked, so that two sweeps never wait for each other.
        expired = (
            select(keys.c.owner, keys.c.key)
            .where(keys.c.expires_at < self._now())
            .order_by(keys.c.owner, keys.c.key)
            .limit(SWEPT_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        with self._engine.begin() as connection:
            connection.execute(delete(keys).where(tuple_(keys.c.owner, keys.c.key).in_(expired)))

    def _write(self, where: ColumnElement[bool], **values: Any) -> bool:
        with self._engine.begin() as connection:
            return connection.execute(update(keys).where(where).values(**values)).rowcount == 1


def _received(owner: str, key: str, job_id: str) -> ColumnElement[bool]:
    return and_(keys.c.owner == owner, keys.c.key == key, keys.c.job_id == job_id, keys.c.fingerprint.is_(None))
