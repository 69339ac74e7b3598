"""`JobWatcher`: everybody who waits for a job waits here. One query in POLL_S for all of them together, and no thread for any of them."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.jobs.repository import Mark

POLL_S = 0.5
# All who wait for one job would answer at once, and every other request would wait for the last of them.
WOKEN_AT_ONCE = 5
PAUSE_S = 0.005
logger = logging.getLogger(__name__)
Condition = Callable[[Mark], bool]


class JobWatcher:
    """Belongs to one event loop. `read` gives the marks of those of the jobs that exist; it may block."""

    def __init__(self, read: Callable[[Collection[str]], Mapping[str, Mark]]) -> None:
        self._read = read
        self._waiting: dict[asyncio.Future[Mark | None], tuple[str, Condition]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._closed = False

    async def wait_for(self, job_id: str, condition: Condition) -> Mark | None:
        """The job's mark as soon as it fulfils the condition; None where the job is gone or the service stops."""
        if self._closed:
            return None
        found: asyncio.Future[Mark | None] = asyncio.get_running_loop().create_future()
        self._waiting[found] = (job_id, condition)
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(), name="job watcher")
        try:
            return await found
        finally:
            del self._waiting[found]

    def close(self) -> None:
        """Ends all waiting: the service stops."""
        self._closed = True
        for found in self._waiting:
            if not found.done():
                found.set_result(None)

    async def _poll(self) -> None:
        while self._waiting:
            await asyncio.sleep(POLL_S)
            # Whoever comes during the query waits for the next one.
            asked = dict(self._waiting)
            try:
                marks = await run_in_threadpool(self._read, {job_id for job_id, _ in asked.values()})
            except SQLAlchemyError as error:
                logger.warning("the database does not answer: %s", error)
                continue
            due = [(found, marks.get(job_id)) for found, (job_id, condition) in asked.items() if _is_due(marks.get(job_id), condition)]
            for start in range(0, len(due), WOKEN_AT_ONCE):
                for found, mark in due[start : start + WOKEN_AT_ONCE]:
                    if not found.done():
                        found.set_result(mark)
                await asyncio.sleep(PAUSE_S)


def _is_due(mark: Mark | None, condition: Condition) -> bool:
    return mark is None or condition(mark)
