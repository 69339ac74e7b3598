"""Retention: what is kept no longer, and what requests that were killed have left, goes. Several may sweep one database and store.

Rows say what is kept. An upload's row goes before its objects, whose keys are never used again; a job's row goes after its files, so that a
sweep that was broken off is taken up by the next. Objects without a row may belong to a request that still receives: these must be old.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from sqlalchemy.exc import OperationalError

from service.jobs.clock import utc_now
from service.jobs.idempotency.repository import IdempotencyRepository
from service.jobs.repository import JobRepository
from service.jobs.uploads.repository import UploadRepository
from service.settings import Settings
from service.storage.keys import UPLOADS, job_prefix, upload_prefix
from service.storage.store import ObjectStore
from service.worker.files import discard_unclaimed, only_logged

logger = logging.getLogger(__name__)

PAUSE_S = 60.0


class Sweeper:
    """Synchronous. One round takes a bounded number of rows of each kind, the next one the rest."""

    def __init__(self, settings: Settings, jobs: JobRepository, clock: Callable[[], datetime] = utc_now) -> None:
        self._settings = settings
        self._jobs = jobs
        self._uploads = UploadRepository(jobs.engine, clock)
        self._keys = IdempotencyRepository(jobs.engine, clock)
        self._store = ObjectStore(settings.store_root)

    def sweep(self) -> None:
        """One round. Where the database is away the rest of it is left out."""
        for step in (self._keys.sweep, self._expired_uploads, self._orphaned_objects, self._expired_jobs, self._unclaimed_inputs):
            try:
                step()
            except OperationalError as error:
                logger.warning("the database does not answer: %s", error)
                return
            except Exception:
                logger.exception("a step of the sweep failed")

    def _expired_uploads(self) -> None:
        unused_s = self._settings.retain_uploads_s
        for owner, upload_id in self._uploads.unused(unused_s):
            # Only where nobody has used it meanwhile.
            for key in self._uploads.delete(owner, upload_id, unused_s) or ():
                self._store.delete(key)

    def _orphaned_objects(self) -> None:
        for receipt in self._store.idle_folders(UPLOADS, self._settings.upload_idle_s):
            stored = self._store.list(upload_prefix(receipt))
            named = self._uploads.named(stored)
            with only_logged(receipt):
                for key in set(stored) - named:
                    self._store.delete(key)
                if not named:
                    self._store.delete_prefix(upload_prefix(receipt))

    def _expired_jobs(self) -> None:
        retain_s = self._settings.retain_jobs_s
        for job_id in self._jobs.finished_before(retain_s) if retain_s is not None else ():
            with only_logged(job_id):
                self._store.delete_prefix(job_prefix(job_id))
                self._jobs.delete(job_id)

    def _unclaimed_inputs(self) -> None:
        # Another table may have come after one that knows what lies here; the home's own has always been here.
        if self._settings.database_url is None:
            discard_unclaimed(self._jobs, self._store, self._settings.upload_idle_s)


async def run_sweeper(sweeper: Sweeper, stop: asyncio.Event) -> None:
    """Sweeps at once and then every minute, until `stop` is set."""
    while not stop.is_set():
        await asyncio.to_thread(sweeper.sweep)
        await sleep(stop, PAUSE_S)


async def sleep(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), timeout=seconds)
