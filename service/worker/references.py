"""Before the trainer starts: the files that a job's references name are fetched, and become its inputs like those that were sent."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from service.fetching.fetcher import Fetcher
from service.jobs.job import Job, JobInput
from service.jobs.repository import JobRepository
from service.references import Reference, parse, to_shown
from service.storage import keys
from service.storage.store import ObjectStore


class LostJob(Exception):
    """Somebody else has the job; what was fetched for it is theirs to fetch."""


async def fetch_references(
    job: Job, store: ObjectStore, folder: Path, fetcher: Fetcher, repository: JobRepository, note: Callable[[str], None]
) -> Job:
    """The job with nothing more to fetch. Each file is stored and recorded by itself, so that no attempt fetches it again.

    Raises: what Fetcher.fetch raises; LostJob.
    """
    for name, given in job.inputs.items():
        reference = _to_fetch(given)
        if reference is None:
            continue
        note(f"Fetches the {name} from {to_shown(reference.text)}.")
        path = folder / f"{name}.fetched"
        fetched = await fetcher.fetch(reference, f"{name}_ref", path)
        key = keys.fetched_key(job.id, job.fence, name, fetched.suffix)
        await asyncio.to_thread(store.put_file, key, path)
        path.unlink()
        stored = given.model_copy(update={"key": key, "bytes": fetched.bytes, "sha256": fetched.sha256})
        job = job.model_copy(update={"inputs": {**job.inputs, name: stored}})
        if not await asyncio.to_thread(repository.record_inputs, job):
            await asyncio.to_thread(store.delete, key)
            raise LostJob(job.id)
        note(f"The {name} has {fetched.bytes:,} bytes, sha256 {fetched.sha256}.")
    return job


def _to_fetch(given: JobInput) -> Reference | None:
    if given.key is not None or given.ref is None:
        return None
    reference = parse(given.ref)
    return Reference(reference.scheme, reference.rest, given.sha256) if reference.remote else None
