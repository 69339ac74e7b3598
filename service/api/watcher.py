"""`JobWatcher`: everybody who waits for a job waits here. One query in POLL_S for all of them together, and no thread for any of them."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.jobs.job import Job
from service.jobs.states import TERMINAL, Status

POLL_S = 0.5
logger = logging.getLogger(__name__)


class JobWatcher:
    """Belongs to one event loop. `read` gives the status of those of the jobs that exist; it may block."""

    def __init__(self, read: Callable[[Collection[str]], Mapping[str, Status]]) -> None:
        self._read = read
        self._waiting: dict[asyncio.Future[Status | None], tuple[str, Status]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._closed = False

    async def wait_until_finished(self, job: Job, timeout_s: float) -> None:
        """Returns when the job has finished, is gone, the time has passed, or the service stops."""
        status: Status | None = job.status
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while status is not None and status not in TERMINAL:
                    status = await self.next_change(job.id, status)

    async def next_change(self, job_id: str, seen: Status) -> Status | None:
        """The status as soon as it is not `seen`; None where the job is gone or the service stops."""
        if self._closed:
            return None
        change: asyncio.Future[Status | None] = asyncio.get_running_loop().create_future()
        self._waiting[change] = (job_id, seen)
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(), name="job watcher")
        try:
            return await change
        finally:
            del self._waiting[change]

    def close(self) -> None:
        """Ends all waiting: the service stops."""
        self._closed = True
        for change in self._waiting:
            if not change.done():
                change.set_result(None)

    async def _poll(self) -> None:
        while self._waiting:
            await asyncio.sleep(POLL_S)
            # Whoever comes during the query waits for the next one.
            asked = dict(self._waiting)
            try:
                found = await run_in_threadpool(self._read, {job_id for job_id, _ in asked.values()})
            except SQLAlchemyError as error:
                logger.warning("the database does not answer: %s", error)
                continue
            for change, (job_id, seen) in asked.items():
                if found.get(job_id) != seen and not change.done():
                    change.set_result(found.get(job_id))
