"""Between the object store and a work directory: inputs and checkpoint in, checkpoint and artifacts out."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from compressor.config import CompressionConfig
from compressor.errors import CompressionError
from compressor.protocol import ARTIFACTS, CHECKPOINT, TRAINER_INPUT, DataReference, TrainerInput
from service.data_roots import FILE_SCHEME, resolve
from service.digests import check_digest
from service.jobs.job import Artifact, Job, JobInput
from service.jobs.repository import JobRepository
from service.storage import keys, retention
from service.storage.store import ObjectStore

logger = logging.getLogger(__name__)

MEDIA_TYPES = {".json": "application/json"}
DEFAULT_MEDIA_TYPE = "application/octet-stream"


def fetch(job: Job, store: ObjectStore, folder: Path, data_roots: Sequence[Path]) -> int | None:
    """Fills the work directory: inputs, the newest checkpoint of an earlier attempt, trainer.json.

    Returns: the fence of that attempt; None where the run begins at its beginning.
    """
    resumed_from = None
    inputs = {name: _fetch_input(name, source, store, folder, data_roots) for name, source in job.inputs.items()}
    for fence in range(job.fence - 1, 0, -1):
        key = keys.checkpoint_key(job.id, fence)
        if store.exists(key):
            store.get_to_file(key, folder / CHECKPOINT)
            logger.info("%s resumes from the checkpoint of attempt %d", job.id, fence)
            resumed_from = fence
            break
    trainer_input = TrainerInput(
        kind=job.kind,
        model=Path(inputs["model"]),
        data=_data_of(inputs) if job.kind == "compress" else None,
        curve=Path(inputs["curve"]) if job.kind == "select" else None,
        config=CompressionConfig.parse(job.config),
    )
    (folder / TRAINER_INPUT).write_text(trainer_input.model_dump_json())
    return resumed_from


def _data_of(inputs: Mapping[str, str]) -> DataReference:
    return DataReference(train=inputs["dataset"], validation=inputs.get("validation"), test=inputs.get("test"))


def _fetch_input(name: str, source: JobInput, store: ObjectStore, folder: Path, data_roots: Sequence[Path]) -> str:
    if source.key is None:
        reference = source.ref or ""
        if not reference.startswith(FILE_SCHEME):
            return reference
        # It was checked when it came; what lies there may have become a link out of the data roots, or another file.
        path = resolve(Path(reference.removeprefix(FILE_SCHEME)), f"{name}_ref", data_roots)
        if source.sha256 is not None:
            check_digest(sha256(path), source.sha256, f"{name}_ref")
        return str(path)
    path = folder / "inputs" / f"{name}{PurePosixPath(source.key).suffix}"
    path.parent.mkdir(exist_ok=True)
    store.get_to_file(source.key, path)
    if source.sha256 is not None and sha256(path) != source.sha256:
        raise CompressionError(f"The stored file of {name!r} is not the one that was sent.", param=name, suggestion="Send the job again.")
    return str(path)


def save_checkpoint(job: Job, store: ObjectStore, folder: Path) -> None:
    """Uploads the checkpoint as it is now. The trainer may replace it meanwhile, so it gets a second name first."""
    snapshot = folder / f"{CHECKPOINT}.upload"
    snapshot.unlink(missing_ok=True)
    os.link(folder / CHECKPOINT, snapshot)
    store.put_file(keys.checkpoint_key(job.id, job.fence), snapshot)


def publish(job: Job, store: ObjectStore, folder: Path) -> list[Artifact]:
    """Uploads the finished artifacts under the attempt's own fence; they count once the job's row names them."""
    artifacts = []
    for path in sorted((folder / ARTIFACTS).iterdir()):
        # Folders and hidden files are the trainer's own; a link could lead out of its folder.
        if path.is_symlink() or not path.is_file() or path.name.startswith("."):
            continue
        key = keys.artifact_key(job.id, job.fence, path.name)
        store.put_file(key, path)
        artifacts.append(
            Artifact(
                name=path.name,
                key=key,
                bytes=path.stat().st_size,
                sha256=sha256(path),
                media_type=MEDIA_TYPES.get(path.suffix, DEFAULT_MEDIA_TYPE),
            )
        )
    return artifacts


def discard_attempts(job_id: str, store: ObjectStore) -> None:
    """Removes what the attempts of a job without a result have left in the store."""
    with only_logged(job_id):
        retention.discard_attempts(job_id, store)


def discard_unclaimed(repository: JobRepository, store: ObjectStore, idle_s: float) -> None:
    """Removes the files of requests that never became a job, because the service was killed meanwhile.

    Another process may be receiving into the same store. It writes the job's row right after the last byte.
    """
    for job_id in store.idle_folders(keys.JOBS, idle_s):
        with only_logged(job_id):
            stored = store.list(keys.job_prefix(job_id))
            # What an attempt has written was a job's once, whatever the table says.
            if all(key.startswith(keys.input_prefix(job_id)) for key in stored) and repository.get(job_id) is None:
                store.delete_prefix(keys.job_prefix(job_id))


def discard_checkpoints(job: Job, store: ObjectStore) -> None:
    """Removes what a job with a result no longer needs: all of the earlier attempts, and its own checkpoint."""
    with only_logged(job.id):
        for fence in range(1, job.fence):
            store.delete_prefix(keys.attempt_prefix(job.id, fence))
        store.delete(keys.checkpoint_key(job.id, job.fence))


@contextmanager
def only_logged(job_id: str) -> Iterator[None]:
    """What cannot be removed only takes room."""
    try:
        yield
    except Exception:
        logger.exception("%s: not everything could be removed from the store", job_id)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
