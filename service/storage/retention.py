"""What is kept of a job without a result: its inputs, which a retry takes, until the job is deleted."""

from service.storage.keys import INPUTS, job_prefix
from service.storage.store import ObjectStore


def discard_attempts(job_id: str, store: ObjectStore) -> None:
    """Removes all that the attempts have written."""
    for folder in store.folders(job_prefix(job_id)) - {INPUTS}:
        store.delete_prefix(f"{job_prefix(job_id)}/{folder}")
