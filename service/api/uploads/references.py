"""`model_ref`, `dataset_ref` and the like: files that the service has, which are checked at once, or that a runner will fetch."""

import os
import stat
from pathlib import Path
from typing import IO

from service.api.problems import ApiError, InvalidDatasetRef, InvalidModelRef, PayloadTooLarge
from service.data_roots import BUILTIN, FILE_SCHEME, MODEL_REF, DatasetRefNotAllowed, ModelRefNotAllowed, resolve, suggest
from service.fetching.address import AddressRefused
from service.fetching.sources import S3Source, open_schemes, to_source
from service.framing.skimmers import TAIL_BYTES, Skimmer
from service.framing.tally import skimmer_for
from service.jobs.job import JobInput
from service.references import DIGEST_MARK, SCHEMES, Reference, parse
from service.settings import Settings

_CHUNK_BYTES = 1024 * 1024


def read_reference(text: str, param: str, settings: Settings) -> Reference:
    """Raises: InvalidModelRef, InvalidDatasetRef; ModelRefNotAllowed, DatasetRefNotAllowed where its scheme is off here."""
    try:
        reference = parse(text)
    except ValueError as error:
        raise _refusal(str(error), param) from None
    if reference.scheme in SCHEMES and reference.scheme not in settings.reference_schemes:
        raise _not_allowed(f"{reference.scheme}: references are off here.", param, settings)
    return reference


def check_reference(reference: Reference, param: str, settings: Settings) -> JobInput:
    """The input that it refers to, but for uploads.

    Raises: InvalidModelRef, ModelRefNotAllowed, or InvalidModel and PayloadTooLarge where a file under a data root is no model to take;
        of datasets InvalidDatasetRef, DatasetRefNotAllowed, InvalidDataset.
    """
    text = reference.text
    if reference.remote:
        return _check_remote(reference, param, settings)
    if text in BUILTIN and param != MODEL_REF:
        if reference.sha256:
            raise InvalidDatasetRef(f"{text} is no file, and has no sha256.", param=param, suggestion=f"Leave {DIGEST_MARK} out.")
        if param != "dataset_ref":
            detail = f"{text} is a whole dataset and cannot be a part of one."
            raise InvalidDatasetRef(detail, param=param, suggestion="Leave the part out; it is then carved from the dataset.")
        return JobInput(ref=text)
    if text.startswith(FILE_SCHEME):
        path = _read_path(text, param, settings)
        num_bytes = _check_file(path, param, settings)
        return JobInput(ref=f"{FILE_SCHEME}{path}", filename=path.name, bytes=num_bytes, sha256=reference.sha256)
    shown = text if len(text) <= 80 else text[:77] + "..."
    raise _refusal(f"{shown!r} is no reference.", param)


def _check_remote(reference: Reference, param: str, settings: Settings) -> JobInput:
    """What can be said without asking anybody; the rest is the runner's."""
    try:
        source = to_source(reference, settings)
    except AddressRefused as error:
        raise _not_allowed(str(error), param, settings) from None
    except ValueError as error:
        raise _refusal(str(error), param, "For example https://example.org/FILE, s3://BUCKET/KEY or hf://ORG/NAME@main/PATH.") from None
    path = source.key if isinstance(source, S3Source) else source.url.path
    return JobInput(ref=reference.text, filename=path.rpartition("/")[2] or None, sha256=reference.sha256)


def _not_allowed(detail: str, param: str, settings: Settings) -> ModelRefNotAllowed | DatasetRefNotAllowed:
    refusal = ModelRefNotAllowed if param == MODEL_REF else DatasetRefNotAllowed
    schemes = ", ".join(f"{scheme}:" for scheme in open_schemes(settings))
    return refusal(detail, param=param, suggestion=f"On are {schemes or 'none'}; or send the file. BAYESPRESS_REFERENCE_... open more.")


def _read_path(text: str, param: str, settings: Settings) -> Path:
    written = text.removeprefix(FILE_SCHEME).removeprefix("//")
    path = Path(written)
    if len(written) > 4096 or "\0" in written or not path.is_absolute() or ".." in path.parts:
        raise _refusal("A file: reference is an absolute path without '..'.", param, "For example file:/data/train.parquet.")
    return resolve(path, param, settings.data_roots)


def _check_file(path: Path, param: str, settings: Settings) -> int:
    """The size of the regular file at `path`, which must be framed as what it stands for."""
    skimmer = skimmer_for(param)
    try:
        # A FIFO would block the opening for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _refusal("The reference leads to something that is not a regular file.", param)
            if param == MODEL_REF:
                _skim_all(file, status.st_size, skimmer, param, settings.max_model_bytes)
            else:
                _skim_ends(file, status.st_size, skimmer)
    except OSError as error:
        raise _refusal(f"The file cannot be read: {error.strerror}.", param) from None
    skimmer.finish()
    if path.suffix.lower() != skimmer.suffix:
        # The trainer reads the file in its place, and goes by its name.
        raise _refusal("The file's name does not say what it is.", param, f"Let it end with {skimmer.suffix}.")
    return status.st_size


def _skim_all(file: IO[bytes], size: int, skimmer: Skimmer, param: str, max_bytes: int) -> None:
    if size > max_bytes:
        suggestion = "Take a smaller model, or let the service be started with a larger BAYESPRESS_MAX_MODEL_BYTES."
        raise PayloadTooLarge(f"The model has more than {max_bytes:,} bytes.", param=param, suggestion=suggestion)
    while chunk := file.read(_CHUNK_BYTES):
        skimmer.feed(chunk)


def _skim_ends(file: IO[bytes], size: int, skimmer: Skimmer) -> None:
    skimmer.feed(file.read(TAIL_BYTES))
    if size > TAIL_BYTES:
        file.seek(max(TAIL_BYTES, size - TAIL_BYTES))
        skimmer.feed(file.read(TAIL_BYTES))


def _refusal(detail: str, param: str, suggestion: str | None = None) -> ApiError:
    refusal = InvalidModelRef if param == MODEL_REF else InvalidDatasetRef
    return refusal(detail, param=param, suggestion=suggestion or suggest(param))
