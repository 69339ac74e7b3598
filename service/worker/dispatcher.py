"""The dispatcher: claims jobs while a slot is free, starts runners, clears up after them. Keeps no state that a restart could lose."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from sqlalchemy.exc import OperationalError

from service.jobs.engine import create_engine
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.storage.store import ObjectStore
from service.worker.executors.local import Attempt, LocalExecutor
from service.worker.files import discard_attempts
from service.worker.home import lock_home, remove_workdir, sweep_workdirs, workdir
from service.worker.processes import is_alive, process_token
from service.worker.sweeper import Sweeper, run_sweeper, sleep
from service.worker.trainer_process import TRAINER_COMMAND

logger = logging.getLogger(__name__)

POLL_S = 0.5
# How long a runner that has lost its lease, or is to stop, may take to end by itself.
GRACE_S = 5.0
SHUTDOWN_S = 8.0


async def run_dispatcher(settings: Settings, stop: asyncio.Event, *, trainer_command: Sequence[str] = TRAINER_COMMAND) -> None:
    """Runs until `stop` is set, then gives the running jobs back to the queue. With no workers it only waits and leaves the home alone.

    Raises: HomeInUse where another dispatcher has this home.
    """
    if settings.workers == 0:
        await stop.wait()
        return
    with lock_home(settings.home) as home_id:
        repository = JobRepository(create_engine(settings.database))
        dispatcher = Dispatcher(settings, repository, LocalExecutor(settings, trainer_command), home_id)
        await asyncio.to_thread(sweep_workdirs, settings.work_root)
        sweeping = asyncio.create_task(run_sweeper(Sweeper(settings, repository), stop))
        try:
            while not stop.is_set():
                await dispatcher.tick()
                await sleep(stop, POLL_S)
        finally:
            await dispatcher.shut_down()
            sweeping.cancel()
            await asyncio.wait([sweeping])


class Dispatcher:
    def __init__(self, settings: Settings, repository: JobRepository, executor: LocalExecutor, home_id: str) -> None:
        self._settings = settings
        self._repository = repository
        self._executor = executor
        self._home_id = home_id
        self._store = ObjectStore(settings.store_root)
        self._process = process_token(os.getpid())
        self._overdue_since: dict[Attempt, float] = {}

    async def tick(self) -> None:
        """One round. Where the database is away the rest of the round is left out; runners look after themselves."""
        for step in (self._clear_up, self._kill_overdue, self._release_dead, self._end_abandoned, self._fill_slots):
            if not await self._take(step):
                return

    async def shut_down(self) -> None:
        """SIGTERM to the runners, which give their jobs back; what is left after a while is killed."""
        self._executor.terminate_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                await self._wait_for_all()
        for attempt in self._executor.attempts:
            self._executor.kill(attempt)
        await self._wait_for_all()
        await self._take(self._release_dead)

    async def _take(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Whether the database was there. One bad row or a full disk must neither end the service nor keep the jobs of others waiting."""
        try:
            await step()
        except OperationalError as error:
            logger.warning("the database does not answer: %s", error)
            return False
        except Exception:
            logger.exception("a step of the dispatcher failed")
        return True

    async def _wait_for_all(self) -> None:
        while self._executor.attempts:
            await self._clear_up()
            await asyncio.sleep(0.05)

    async def _clear_up(self) -> None:
        for (job_id, fence), code in self._executor.reap():
            self._overdue_since.pop((job_id, fence), None)
            if code != 0:
                logger.warning("the runner of %s attempt %d ended with code %d", job_id, fence, code)
            await asyncio.to_thread(remove_workdir, workdir(self._settings.work_root, job_id, fence))

    async def _kill_overdue(self) -> None:
        now = asyncio.get_running_loop().time()
        for attempt in self._executor.attempts:
            lease = await asyncio.to_thread(self._repository.read_lease, *attempt)
            if lease.held and not lease.expired and not lease.cancel_requested:
                self._overdue_since.pop(attempt, None)
            elif now - self._overdue_since.setdefault(attempt, now) > GRACE_S:
                logger.warning("the runner of %s attempt %d does not end by itself: killed", *attempt)
                self._executor.kill(attempt)

    async def _release_dead(self) -> None:
        await asyncio.to_thread(self._repository.release_dead, self._home_id, is_alive)

    async def _end_abandoned(self) -> None:
        for job_id in await asyncio.to_thread(self._repository.end_abandoned):
            await asyncio.to_thread(discard_attempts, job_id, self._store)

    async def _fill_slots(self) -> None:
        lease_s = self._settings.lease_s
        while len(self._executor.attempts) < self._settings.workers:
            job = await asyncio.to_thread(self._repository.claim_next, lease_s, home=self._home_id, process=self._process)
            if job is None:
                return
            try:
                process = await self._executor.start(job.id, job.fence)
            except OSError:
                logger.exception("no runner could be started for %s", job.id)
                await asyncio.to_thread(self._repository.requeue, job.id, job.fence)
                return
            # Under the runner's own name at once: where it dies before it can say it, the job need not wait for its lease to end.
            await asyncio.to_thread(self._repository.renew, job.id, job.fence, lease_s, process=process)
