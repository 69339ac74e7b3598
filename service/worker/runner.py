"""python -m service.worker.runner JOB FENCE: one attempt at one job. Fetches, holds the lease, runs the trainer, publishes. Torch-free."""

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from compressor.errors import CompressionError, Problem
from compressor.protocol import CHECKPOINT, CheckpointSaved, Progress
from service.fetching.errors import ReferenceUnreachable
from service.fetching.fetcher import Fetcher
from service.jobs.engine import create_engine
from service.jobs.job import Artifact, Job
from service.jobs.repository import JobRepository
from service.jobs.states import Status
from service.settings import Settings
from service.storage.store import ObjectStore
from service.worker import files
from service.worker.home import OWNER, remove_workdir, workdir
from service.worker.lease import LeaseEnd, LeaseHolder
from service.worker.processes import die_with, process_token
from service.worker.references import fetch_references
from service.worker.trainer_process import TRAINER_COMMAND, Limits, Outcome, TrainerProcess

logger = logging.getLogger(__name__)

RETRY_S = 1.0


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; `transient` where another attempt may end otherwise."""

    status: Status
    artifacts: list[Artifact] = field(default_factory=list)
    error: Problem | None = None
    verdict: str | None = None
    transient: bool = False
    log_tail: str = ""


class Runner:
    """One attempt at `job`, which this process has been given under `job.fence`."""

    def __init__(self, settings: Settings, repository: JobRepository, job: Job, trainer_command: Sequence[str]) -> None:
        self._settings = settings
        self._repository = repository
        self._store = ObjectStore(settings.store_root)
        self._job = job
        self._trainer_command = trainer_command
        self._folder = workdir(settings.work_root, job.id, job.fence)
        self._process = process_token(os.getpid())
        self._lease = LeaseHolder(repository, job.id, job.fence, lease_s=settings.lease_s, renew_s=settings.renew_s, process=self._process)

    async def run(self, shutdown: asyncio.Event) -> None:
        holding = asyncio.create_task(self._lease.hold(shutdown))
        attempt = asyncio.create_task(self._attempt())
        try:
            await asyncio.wait({holding, attempt}, return_when=asyncio.FIRST_COMPLETED)
            if attempt.done():
                await self._finish(attempt.result(), holding)
            else:
                attempt.cancel()
                await asyncio.wait({attempt})
                await self._give_up(holding.result())
        finally:
            holding.cancel()
            await asyncio.to_thread(remove_workdir, self._folder)

    async def _attempt(self) -> Ending:
        try:
            self._folder.mkdir(parents=True)
            (self._folder / OWNER).write_text(self._process)
            self._job = await self._fetch_references()
            resumed_from = await asyncio.to_thread(files.fetch, self._job, self._store, self._folder, self._settings.data_roots)
            if resumed_from is not None:
                self._lease.note("info", f"Goes on from the checkpoint of attempt {resumed_from}.")
            outcome, log_tail = await self._train()
            return await self._to_ending(outcome, log_tail)
        except CompressionError as error:
            transient = isinstance(error, ReferenceUnreachable) and error.transient
            return Ending(Status.FAILED, error=error.to_problem(), transient=transient)
        except Exception as error:
            # Disk full, store away, a bug: the job must not be lost for it, and it ends when all attempts have failed so.
            logger.exception("%s: the attempt failed", self._job.id)
            problem = CompressionError(f"The worker failed: {error}", suggestion="See the worker's log.").to_problem()
            return Ending(Status.FAILED, error=problem, transient=True)

    async def _fetch_references(self) -> Job:
        fetcher, note = Fetcher(self._settings), partial(self._lease.note, "info")
        return await fetch_references(self._job, self._store, self._folder, fetcher, self._repository, note)

    async def _train(self) -> tuple[Outcome, str]:
        settings = self._settings
        limits = Limits(
            memory_bytes=settings.trainer_memory_bytes,
            wall_s=settings.trainer_wall_s,
            threads=max(1, (os.cpu_count() or 1) // settings.workers) if settings.workers > 1 else None,
        )
        uses_cuda = self._job.config.get("device") != "cpu"
        async with TrainerProcess(self._folder, limits, cuda=uses_cuda, command=self._trainer_command) as trainer:
            async for line in trainer.lines():
                if isinstance(line, Progress):
                    self._lease.report(line, trainer.log_tail)
                elif isinstance(line, CheckpointSaved):
                    await self._save_checkpoint()
            return await trainer.outcome(), trainer.log_tail

    async def _save_checkpoint(self) -> None:
        try:
            await asyncio.to_thread(files.save_checkpoint, self._job, self._store, self._folder)
        except Exception:
            # The next one may get through; without any, an interrupted run only starts from the beginning.
            logger.exception("%s: a checkpoint could not be stored", self._job.id)
            self._lease.note("warn", "A checkpoint could not be stored.")

    async def _to_ending(self, outcome: Outcome, log_tail: str) -> Ending:
        if outcome.result is None:
            return Ending(Status.FAILED, error=outcome.problem, transient=outcome.transient, log_tail=log_tail)
        return Ending(
            Status.FAILED_GATE if outcome.result.problem else Status.SUCCEEDED,
            artifacts=await asyncio.to_thread(files.publish, self._job, self._store, self._folder),
            error=outcome.result.problem,
            verdict=outcome.result.verdict,
            log_tail=log_tail,
        )

    async def _finish(self, ending: Ending, holding: asyncio.Task[LeaseEnd]) -> None:
        """Writes the ending; while the database is away, tries again as long as the lease holds."""
        while True:
            try:
                await self._lease.flush()
                written = await asyncio.to_thread(self._write, ending)
            except SQLAlchemyError as error:
                logger.warning("%s: the result could not be written: %s", self._job.id, error)
                if holding.done():
                    return
                await asyncio.sleep(RETRY_S)
            else:
                logger.info("%s attempt %d: %s", self._job.id, self._job.fence, ending.status if written else "result dropped")
                return

    def _write(self, ending: Ending) -> bool:
        job, repository = self._job, self._repository
        if ending.transient and job.attempts < job.max_attempts:
            return self._leave(ending.error, ending.log_tail)
        finished = repository.finish(
            job.id,
            job.fence,
            ending.status,
            artifacts=ending.artifacts,
            error=ending.error,
            verdict=ending.verdict,
            log_tail=ending.log_tail,
            new=self._lease.unwritten_events(),
        )
        if not finished:
            # Somebody else has the job, or it was cancelled a moment ago.
            return self._end_cancelled()
        if ending.artifacts:
            files.discard_checkpoints(job, self._store)
        else:
            files.discard_attempts(job.id, self._store)
        return True

    def _leave(self, error: Problem | None = None, log_tail: str = "") -> bool:
        """Gives the job back: to the queue, to its pause where one was asked for, or to its end where it was cancelled a moment ago."""
        job_id, fence, repository, new = self._job.id, self._job.fence, self._repository, self._lease.unwritten_events()
        return (
            repository.requeue(job_id, fence, error=error, log_tail=log_tail, new=new)
            or repository.pause(job_id, fence, error=error, log_tail=log_tail, new=new)
            or self._end_cancelled()
        )

    def _end_cancelled(self) -> bool:
        new = self._lease.unwritten_events()
        finished = self._repository.finish(self._job.id, self._job.fence, Status.CANCELLED, new=new)
        if finished:
            files.discard_attempts(self._job.id, self._store)
        return finished

    async def _give_up(self, reason: LeaseEnd) -> None:
        logger.info("%s attempt %d stops: %s", self._job.id, self._job.fence, reason.name.lower())
        if reason is LeaseEnd.LOST:
            return
        try:
            if reason is LeaseEnd.PAUSE and (self._folder / CHECKPOINT).exists():
                # Perhaps a newer one than the last that the trainer came to announce.
                await self._save_checkpoint()
            await asyncio.to_thread(self._end_cancelled if reason is LeaseEnd.CANCEL else self._leave)
        except SQLAlchemyError as error:
            # The lease runs out by itself.
            logger.warning("%s could not be given back: %s", self._job.id, error)


async def run(job_id: str, fence: int, *, parent: int | None, trainer_command: Sequence[str]) -> None:
    shutdown = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, shutdown.set)
    if parent is not None:
        die_with(parent)
    settings = Settings()
    repository = JobRepository(create_engine(settings.database))
    job = await asyncio.to_thread(repository.get, job_id)
    if job is None or job.fence != fence:
        logger.info("%s attempt %d: the job has gone to somebody else", job_id, fence)
        return
    await Runner(settings, repository, job, trainer_command).run(shutdown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("fence", type=int)
    parser.add_argument("--parent", type=int, help="end when this process, our parent, does")
    parser.add_argument("--trainer", nargs=argparse.REMAINDER, default=TRAINER_COMMAND, help="command that gets the work directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run(arguments.job, arguments.fence, parent=arguments.parent, trainer_command=arguments.trainer))


if __name__ == "__main__":
    main()
