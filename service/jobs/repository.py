"""`JobRepository`: all SQL about jobs. Every write of a runner names the fence of its claim; 0 rows mean that it has lost the job."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, case, delete, func, insert, or_, select, update

from compressor.errors import Problem, TrainerCrashed
from compressor.protocol import Kind, Progress
from service.jobs.clock import DatabaseClock, utc_now
from service.jobs.events.event import NewEvent, status_event
from service.jobs.events.repository import append_events, delete_events
from service.jobs.job import Artifact, Job
from service.jobs.quotas.quota import NO_QUOTAS, Quotas, check_room
from service.jobs.quotas.repository import check_inserted, has_slot, is_within_slots, lock_owner, usage_of
from service.jobs.states import LEASED, RESUMABLE, TERMINAL, Status, sources
from service.jobs.tables import OPEN, idempotency_keys, jobs

DATETIMES = ("created_at", "started_at", "finished_at", "lease_until", "estimated_finish")


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a client wants to see: one of these states, this kind, all of these pairs of metadata. Empty: whatever it is.

    `owner` is whose they may be; None: everybody's.
    """

    statuses: Collection[Status] = ()
    kind: Kind | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        if self.owner is not None:
            yield jobs.c.owner == self.owner
        if self.statuses:
            yield jobs.c.status.in_([status.value for status in self.statuses])
        if self.kind is not None:
            yield jobs.c.kind == self.kind
        for key, value in self.metadata.items():
            yield jobs.c.metadata[key].as_string() == value


EVERY_JOB = JobFilter()
SWEPT_AT_ONCE = 100
# Where a trainer says nonsense, a date still has to come of it.
MAX_ETA_S = 1e9


class Mark(NamedTuple):
    """How far a job has come, as whoever waits for it sees it."""

    status: Status
    last_event_id: int


@dataclass(frozen=True)
class LeaseState:
    """What a runner, or the dispatcher that watches it, learns about its lease."""

    held: bool
    expired: bool = False
    cancel_requested: bool = False
    pause_requested: bool = False


class JobRepository:
    """Synchronous; safe to use from several threads and processes. `clock` counts on SQLite only, PostgreSQL has its own."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self.engine = engine
        self._now = DatabaseClock(engine, clock)

    # What clients ask for

    def insert(self, job: Job, quotas: Quotas = NO_QUOTAS) -> None:
        """Raises QuotaReached where the job does not fit beside the others of its owner."""
        with self.engine.begin() as connection:
            insert_job(connection, job, quotas)

    def check_room(self, owner: str, quotas: Quotas) -> None:
        """Whether any further job would fit now; `insert` has the last word. Raises QuotaReached."""
        if quotas.limit_jobs:
            with self.engine.begin() as connection:
                check_room(usage_of(connection, owner), quotas)

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """The job, where it is this owner's; None: anybody's."""
        if not job_id.isprintable():  # PostgreSQL takes no NUL and no half of a surrogate pair, not even to find nothing
            return None
        query = select(jobs).where(jobs.c.id == job_id)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        with self.engine.begin() as connection:
            row = connection.execute(query).one_or_none()
        return _to_job(row) if row else None

    def list_recent(self, limit: int, after: str | None = None, wanted: JobFilter = EVERY_JOB) -> list[Job]:
        """The newest first; `after` is the last id of the page before."""
        query = select(jobs).where(*wanted.conditions()).order_by(jobs.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(jobs.c.id < after)
        with self.engine.begin() as connection:
            return [_to_job(row) for row in connection.execute(query)]

    def counts(self) -> dict[Status, int]:
        """Number of jobs in each state that has any."""
        with self.engine.begin() as connection:
            rows = connection.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status))
            return {Status(status): count for status, count in rows}

    def marks(self, job_ids: Collection[str]) -> dict[str, Mark]:
        """Of those of the jobs that exist."""
        query = select(jobs.c.id, jobs.c.status, jobs.c.last_event_id).where(jobs.c.id.in_(job_ids))
        with self.engine.begin() as connection:
            return {job_id: Mark(Status(status), last) for job_id, status, last in connection.execute(query)}

    def has_unfinished_selections(self, job_id: str) -> bool:
        """Whether a job that has not finished reads the files of this one."""
        query = select(jobs.c.id).where(jobs.c.parent_id == job_id, jobs.c.status.not_in(TERMINAL)).limit(1)
        with self.engine.begin() as connection:
            return connection.execute(query).one_or_none() is not None

    def finished_before(self, age_s: float) -> list[str]:
        """Some of the jobs that finished so long ago, and that no unfinished one reads from."""
        child = jobs.alias()
        readers = select(child.c.id).where(child.c.parent_id == jobs.c.id, child.c.status.not_in(TERMINAL))
        old = and_(jobs.c.status.in_(TERMINAL), jobs.c.finished_at < self._now(-age_s))
        query = select(jobs.c.id).where(old, ~readers.exists()).order_by(jobs.c.id).limit(SWEPT_AT_ONCE)
        with self.engine.begin() as connection:
            return list(connection.execute(query).scalars())

    def delete(self, job_id: str) -> bool:
        """Removes the row of a finished job, its events, and the key of the request that made it; False where there is none."""
        statement = delete(jobs).where(jobs.c.id == job_id, jobs.c.status.in_(TERMINAL))
        with self.engine.begin() as connection:
            if connection.execute(statement).rowcount != 1:
                return False
            delete_events(connection, job_id)
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.job_id == job_id))
        return True

    def request_cancel(self, job_id: str) -> Job | None:
        """Ends a waiting job at once and asks the runner of a running one to stop; leaves a finished job as it is."""
        return self._request(job_id, Status.CANCELLING, Status.CANCELLED, cancel_requested=True)

    def request_pause(self, job_id: str) -> Job | None:
        """Holds a waiting job at once and asks the runner of a running one to leave; leaves any other job as it is."""
        return self._request(job_id, Status.PAUSING, Status.PAUSED)

    def resume(self, job_id: str) -> Job | None:
        """Puts a paused job back into the queue; leaves any other as it is."""
        paused = and_(jobs.c.id == job_id, jobs.c.status.in_(sources(Status.QUEUED) - LEASED))
        self._write(paused, [status_event(Status.QUEUED)], status=Status.QUEUED.value)
        return self.get(job_id)

    def _request(self, job_id: str, asked: Status, at_once: Status, **values: Any) -> Job | None:
        """`at_once` for a job that no runner holds, else `asked`, wherever the table of states has such a transition."""
        waiting = jobs.c.status.in_(sources(at_once) - LEASED)
        statement = (
            update(jobs)
            .where(jobs.c.id == job_id, or_(waiting, jobs.c.status.in_(sources(asked))))
            .values(
                status=case((waiting, at_once.value), else_=asked.value),
                finished_at=case((waiting, self._now())) if at_once in TERMINAL else None,
                last_event_id=jobs.c.last_event_id + 1,
                **values,
            )
            .returning(jobs.c.status, jobs.c.last_event_id)
        )
        with self.engine.begin() as connection:
            for status, last_id in connection.execute(statement).all():
                append_events(connection, job_id, last_id, [status_event(Status(status))])
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        return _to_job(row) if row else None

    # What a dispatcher does

    def claim_next(self, lease_s: float, *, home: str, process: str) -> Job | None:
        """The oldest job that is queued or whose lease has run out, now leased to `process` under a new fence.

        What would go over the number that its owner may have running waits, and others go past it.
        """
        other = jobs.alias()
        candidate = (
            select(other.c.id)
            .where(OPEN, self._claimable(other.c), has_slot(other.c, self._now()))
            .order_by(other.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(jobs)
            .where(jobs.c.id == candidate, self._claimable(jobs.c))
            .values(
                status=Status.VALIDATING.value,
                fence=jobs.c.fence + 1,
                attempts=jobs.c.attempts + 1,
                lease_until=self._now(lease_s),
                started_at=func.coalesce(jobs.c.started_at, self._now()),
                home=home,
                process=process,
                last_event_id=jobs.c.last_event_id + 1,
            )
            .returning(jobs)
        )
        while True:
            with self.engine.connect() as connection:
                row = connection.execute(statement).one_or_none()
                if row is None:
                    return None
                if is_within_slots(connection, row.owner, row.max_running_jobs, self._now()):
                    append_events(connection, row.id, row.last_event_id, [status_event(Status.VALIDATING)])
                    connection.commit()
                    return _to_job(row)

    def end_abandoned(self) -> list[str]:
        """Ends the jobs whose lease has run out and that no attempt may take over: cancelled ones, and those out of attempts.

        What was to be paused is paused: it has the last checkpoint of its runner.
        """
        self._settle(Status.PAUSING, Status.PAUSED)
        ended = self._settle(Status.CANCELLING, Status.CANCELLED, finished_at=self._now())
        # Only what the ending needs, so that a row that cannot be read as a job comes to its end too.
        exhausted = select(jobs.c.id, jobs.c.fence, jobs.c.attempts, jobs.c.log_tail).where(
            OPEN, jobs.c.status.in_(RESUMABLE), jobs.c.lease_until < self._now(), jobs.c.attempts >= jobs.c.max_attempts
        )
        with self.engine.begin() as connection:
            found = connection.execute(exhausted).all()
        return ended + [row.id for row in found if self._fail_exhausted(*row)]

    def _settle(self, source: Status, target: Status, **values: Any) -> list[str]:
        """Gives `target` to the jobs in `source` whose runner is gone."""
        statement = (
            update(jobs)
            .where(OPEN, jobs.c.status == source.value, jobs.c.lease_until < self._now())
            .values(
                status=target.value, last_event_id=jobs.c.last_event_id + 1, lease_until=None, eta_s=None, estimated_finish=None, **values
            )
            .returning(jobs.c.id, jobs.c.last_event_id)
        )
        with self.engine.begin() as connection:
            settled = connection.execute(statement).all()
            for job_id, last_id in settled:
                append_events(connection, job_id, last_id, [status_event(target)])
        return [job_id for job_id, _ in settled]

    def release_dead(self, home: str, is_alive: Callable[[str], bool]) -> int:
        """Ends the leases that processes of `home` held and that are no longer alive."""
        held = select(jobs.c.id, jobs.c.fence, jobs.c.process).where(OPEN, jobs.c.home == home, jobs.c.lease_until >= self._now())
        with self.engine.begin() as connection:
            found = connection.execute(held).all()
        dead = [(job_id, fence) for job_id, fence, process in found if not is_alive(process)]
        return sum(self._write(_owned(job_id, fence, LEASED), lease_until=self._now(-1)) for job_id, fence in dead)

    # What a runner does

    def renew(self, job_id: str, fence: int, lease_s: float, *, process: str) -> LeaseState:
        statement = (
            update(jobs)
            .where(_owned(job_id, fence, LEASED))
            .values(lease_until=self._now(lease_s), process=process)
            .returning(*_LEASE_COLUMNS)
        )
        with self.engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
        return LeaseState(True, False, *map(bool, row)) if row else LeaseState(held=False)

    def read_lease(self, job_id: str, fence: int) -> LeaseState:
        query = select(jobs.c.lease_until < self._now(), *_LEASE_COLUMNS).where(_owned(job_id, fence, LEASED))
        with self.engine.begin() as connection:
            row = connection.execute(query).one_or_none()
        return LeaseState(True, *map(bool, row)) if row else LeaseState(held=False)

    def update_progress(self, job_id: str, fence: int, progress: Progress, log_tail: str, new: Sequence[NewEvent] = ()) -> bool:
        """Writes where the run stands, and the events since the last time."""
        status = Status.VALIDATING if progress.phase == "validate" else Status.RUNNING
        return self._write(
            _owned(job_id, fence, RESUMABLE),
            new,
            status=status.value,
            log_tail=log_tail,
            estimated_finish=None if progress.eta_s is None else self._now(min(progress.eta_s, MAX_ETA_S)),
            **progress.model_dump(include={"phase", "progress", "eta_s", "metrics"}),
        )

    def add_events(self, job_id: str, fence: int, new: Sequence[NewEvent]) -> bool:
        return self._write(_owned(job_id, fence, LEASED), new)

    def record_inputs(self, job: Job) -> bool:
        """What the inputs are, now that one more has been fetched: a later attempt takes the same bytes, and the owner's usage has them."""
        inputs = {name: given.model_dump(mode="json") for name, given in job.inputs.items()}
        return self._write(_owned(job.id, job.fence, LEASED), inputs=inputs, stored_bytes=job.stored_bytes)

    def finish(
        self,
        job_id: str,
        fence: int,
        status: Status,
        *,
        artifacts: Iterable[Artifact] = (),
        error: Problem | None = None,
        verdict: str | None = None,
        log_tail: str = "",
        new: Sequence[NewEvent] = (),
    ) -> bool:
        """Ends the job; False where a newer owner exists, or the job is being cancelled and `status` is not that."""
        values: dict[str, Any] = {"progress": 1.0} if status in {Status.SUCCEEDED, Status.FAILED_GATE} else {}
        artifacts = list(artifacts)
        return self._write(
            _owned(job_id, fence, sources(status) & LEASED),
            [*new, status_event(status, message=verdict if status is Status.SUCCEEDED else None, error=error)],
            status=status.value,
            artifacts=[artifact.model_dump(mode="json") for artifact in artifacts],
            stored_bytes=jobs.c.stored_bytes + sum(artifact.bytes for artifact in artifacts),
            error=error.model_dump() if error else None,
            verdict=verdict,
            log_tail=log_tail,
            eta_s=None,
            estimated_finish=None,
            lease_until=None,
            finished_at=self._now(),
            **values,
        )

    def requeue(self, job_id: str, fence: int, *, error: Problem | None = None, log_tail: str = "", new: Sequence[NewEvent] = ()) -> bool:
        """Gives the job back for another attempt, which counts where this one failed with `error`; a shutdown does not count as one."""
        return self._leave(job_id, fence, Status.QUEUED, error, log_tail, new)

    def pause(self, job_id: str, fence: int, *, error: Problem | None = None, log_tail: str = "", new: Sequence[NewEvent] = ()) -> bool:
        """Leaves a job that is to be paused; False where it is not. The attempt counts where it failed with `error`."""
        return self._leave(job_id, fence, Status.PAUSED, error, log_tail, new)

    def _leave(self, job_id: str, fence: int, status: Status, error: Problem | None, log_tail: str, new: Sequence[NewEvent]) -> bool:
        return self._write(
            _owned(job_id, fence, sources(status) & LEASED),
            [*new, status_event(status, level="warn" if error else "info", error=error)],
            status=status.value,
            lease_until=None,
            log_tail=log_tail,
            eta_s=None,
            estimated_finish=None,
            attempts=jobs.c.attempts - (0 if error else 1),
        )

    def _fail_exhausted(self, job_id: str, fence: int, attempts: int, log_tail: str) -> bool:
        log = f" Its last log lines:\n{log_tail}" if log_tail else ""
        error = TrainerCrashed(
            f"{attempts} attempts ended without a result.{log}",
            suggestion="See the worker's log; the machine may be short of memory.",
        )
        return self.finish(job_id, fence, Status.FAILED, error=error.to_problem(), log_tail=log_tail)

    def _write(self, where: ColumnElement[bool], new: Sequence[NewEvent] = (), **values: Any) -> bool:
        statement = update(jobs).where(where).values(last_event_id=jobs.c.last_event_id + len(new), **values)
        with self.engine.begin() as connection:
            row = connection.execute(statement.returning(jobs.c.id, jobs.c.last_event_id)).one_or_none()
            if row is not None:
                append_events(connection, row.id, row.last_event_id, new)
        return row is not None

    def _claimable(self, columns: Any) -> ColumnElement[bool]:
        return or_(
            columns.status == Status.QUEUED.value,
            and_(
                columns.status.in_(RESUMABLE),
                columns.lease_until < self._now(),
                columns.attempts < columns.max_attempts,
            ),
        )


def insert_job(connection: Connection, job: Job, quotas: Quotas = NO_QUOTAS) -> None:
    """Raises QuotaReached, by which the transaction is rolled back."""
    if quotas.limit_jobs:
        lock_owner(connection, job.owner)
    values = job.model_dump(mode="json")
    values |= {name: getattr(job, name) for name in DATETIMES}
    connection.execute(insert(jobs).values(values | {"last_event_id": 1, "stored_bytes": job.stored_bytes}))
    append_events(connection, job.id, 1, [status_event(job.status, error=job.error)])
    # After the insert, which has locked the database where it is SQLite.
    if quotas.limit_jobs:
        check_inserted(connection, job, quotas)


# What a runner is asked to do, in the order of LeaseState.
_LEASE_COLUMNS = (jobs.c.cancel_requested, jobs.c.status == Status.PAUSING.value)


def _owned(job_id: str, fence: int, statuses: Iterable[Status]) -> ColumnElement[bool]:
    return and_(jobs.c.id == job_id, jobs.c.fence == fence, jobs.c.status.in_([status.value for status in statuses]))


def _to_job(row: Row[Any]) -> Job:
    return Job.model_validate({name: value for name, value in row._asdict().items() if name in Job.model_fields})
