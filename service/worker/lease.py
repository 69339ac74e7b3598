"""`LeaseHolder`: while a runner works, renews its lease, writes its progress and looks for reasons to stop."""

import asyncio
import logging
import math
from enum import Enum, auto

from sqlalchemy.exc import SQLAlchemyError

from compressor.protocol import Progress
from service.jobs.events.event import Level, NewEvent, metrics_event, phase_event, status_event
from service.jobs.repository import JobRepository, LeaseState
from service.jobs.states import Status

logger = logging.getLogger(__name__)

POLL_S = 1.0


class LeaseEnd(Enum):
    LOST = auto()
    CANCEL = auto()
    PAUSE = auto()
    SHUTDOWN = auto()


class LeaseHolder:
    """The lease of one attempt. `process` is the token of this process."""

    def __init__(self, repository: JobRepository, job_id: str, fence: int, *, lease_s: float, renew_s: float, process: str) -> None:
        self._repository = repository
        self._job_id = job_id
        self._fence = fence
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._process = process
        self._unwritten: tuple[Progress, str] | None = None
        self._events: list[NewEvent] = []
        self._phase: str | None = None
        self._flushing = asyncio.Lock()

    def note(self, level: Level, message: str) -> None:
        """A message among the job's events, written with the next poll or with what the attempt leaves."""
        self._events.append(NewEvent(level=level, type="message", message=message))

    def report(self, progress: Progress, log_tail: str) -> None:
        """To be written with the next poll; of several reports the last is, and the events of all of them."""
        finite = {name: value for name, value in progress.metrics.items() if math.isfinite(value)}
        eta_s = progress.eta_s if progress.eta_s is not None and math.isfinite(progress.eta_s) else None
        progress = progress.model_copy(update={"metrics": finite, "eta_s": eta_s})
        if progress.phase != self._phase:
            if self._phase in {None, "validate"} and progress.phase != "validate":
                self._events.append(status_event(Status.RUNNING))
            self._events.append(phase_event(progress))
            self._phase = progress.phase
        if progress.metrics:
            self._events.append(metrics_event(progress))
        self._unwritten = (progress, log_tail)

    async def hold(self, shutdown: asyncio.Event) -> LeaseEnd:
        """Returns when the work has to stop. While the database is away it goes on, but never past the end of the lease."""
        now = asyncio.get_running_loop().time
        # How much of the lease is left is not known before the first renewal.
        deadline, next_renewal = now() + self._renew_s, now()
        while not shutdown.is_set():
            asked_at = now()
            renews = asked_at >= next_renewal
            try:
                state = await asyncio.wait_for(self._ask(renews), timeout=deadline - asked_at)
            except (SQLAlchemyError, TimeoutError) as error:
                logger.warning("%s: the database does not answer: %s", self._job_id, error)
            else:
                if not state.held:
                    return LeaseEnd.LOST
                if state.cancel_requested:
                    return LeaseEnd.CANCEL
                if state.pause_requested:
                    return LeaseEnd.PAUSE
                if renews:
                    deadline, next_renewal = asked_at + self._lease_s, asked_at + self._renew_s
            if now() >= deadline:
                return LeaseEnd.LOST
            await self._sleep(shutdown, min(POLL_S, deadline - now(), max(next_renewal - now(), 0.1)))
        return LeaseEnd.SHUTDOWN

    def unwritten_events(self) -> list[NewEvent]:
        """What is still to be told when the attempt leaves the job. That it runs is no longer true."""
        return [event for event in self._events if event.type != "status"]

    async def flush(self) -> None:
        """Writes the last report and the events; where that fails, they are still there for the next time."""
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        report, events = self._unwritten, tuple(self._events)
        if report is not None:
            written = await asyncio.to_thread(self._repository.update_progress, self._job_id, self._fence, *report, events)
        elif events:
            written = await asyncio.to_thread(self._repository.add_events, self._job_id, self._fence, events)
        else:
            return
        if written:
            del self._events[: len(events)]
        # Unless a newer one has come meanwhile.
        if self._unwritten is report:
            self._unwritten = None

    async def _ask(self, renews: bool) -> LeaseState:
        await self.flush()
        if renews:
            return await asyncio.to_thread(self._repository.renew, self._job_id, self._fence, self._lease_s, process=self._process)
        return await asyncio.to_thread(self._repository.read_lease, self._job_id, self._fence)

    @staticmethod
    async def _sleep(shutdown: asyncio.Event, seconds: float) -> None:
        try:
            await asyncio.wait_for(shutdown.wait(), timeout=seconds)
        except TimeoutError:
            return
