"""All SQL that counts what an owner has. It runs in the transaction that adds to it, so that of two at once each sees the other."""

from dataclasses import replace
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, ScalarSelect, cast, func, or_, select

from service.jobs.job import Job
from service.jobs.quotas.quota import Quotas, Usage, check_room
from service.jobs.states import TERMINAL
from service.jobs.tables import HELD, jobs, upload_files, upload_objects

# The first of two numbers: that of the migrations is one, so the two are never the same lock.
_LOCK = 0x71756F74


def lock_owner(connection: Connection, owner: str) -> None:
    """Until the transaction ends, nobody else adds to what this owner has. On SQLite the first write of a transaction does that."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(owner))))


def usage_of(connection: Connection, owner: str) -> Usage:
    stored_bytes = cast(func.coalesce(func.sum(jobs.c.stored_bytes), 0), BigInteger)
    query = select(func.count().filter(jobs.c.status.not_in(TERMINAL)), stored_bytes).where(jobs.c.owner == owner)
    unfinished_jobs, of_jobs = connection.execute(query).one()
    return Usage(unfinished_jobs, of_jobs + _uploaded_bytes(connection, owner))


def _uploaded_bytes(connection: Connection, owner: str) -> int:
    """Of bytes that others have sent as well, each owner has their own."""
    total = cast(func.coalesce(func.sum(upload_objects.c.bytes), 0), BigInteger)
    query = select(total).select_from(upload_files.join(upload_objects)).where(upload_files.c.owner == owner)
    return connection.execute(query).scalar_one()


def check_inserted(connection: Connection, job: Job, quotas: Quotas) -> None:
    """Whether the job, which has just been inserted, fits beside the others of its owner. Raises QuotaReached."""
    usage = usage_of(connection, job.owner)
    check_room(Usage(usage.unfinished_jobs - 1, usage.stored_bytes - job.stored_bytes), quotas, job.stored_bytes)


def check_uploaded(connection: Connection, owner: str, new_bytes: int, quotas: Quotas) -> None:
    """Whether an upload that has just been written fits beside what its owner has. Raises QuotaReached."""
    used = usage_of(connection, owner).stored_bytes - new_bytes
    check_room(Usage(0, used), replace(quotas, max_queued_jobs=None), new_bytes)


def has_slot(columns: Any, now: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether fewer jobs of the owner run than may where the job of `columns` is to start."""
    return or_(columns.max_running_jobs.is_(None), _num_held(columns.owner, now) < columns.max_running_jobs)


def is_within_slots(connection: Connection, owner: str, limit: int | None, now: ColumnElement[Any]) -> bool:
    """Whether a job that has just been claimed has its slot still: another may have been claimed at the same moment."""
    if limit is None:
        return True
    lock_owner(connection, owner)
    return connection.execute(select(_num_held(owner, now))).scalar_one() <= limit


def _num_held(owner: Any, now: ColumnElement[Any]) -> ScalarSelect[int]:
    held = jobs.alias()
    return select(func.count()).select_from(held).where(HELD, held.c.owner == owner, held.c.lease_until >= now).scalar_subquery()
