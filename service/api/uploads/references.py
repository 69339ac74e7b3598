"""`dataset_ref`: rows that the service already has. Checked at once."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from service.api.problems import InvalidDatasetRef
from service.api.uploads.framing import TAIL_BYTES, DatasetSkimmer
from service.data_roots import BUILTIN, FILE_SCHEME, SUGGESTION, resolve
from service.jobs.job import JobInput


def check_reference(text: str, param: str, data_roots: Sequence[Path]) -> JobInput:
    """The input that `text` refers to.

    Raises: InvalidDatasetRef, DatasetRefNotAllowed, or InvalidDataset where a file under a data root is none.
    """
    if text in BUILTIN:
        if param != "dataset_ref":
            detail = f"{text} is a whole dataset and cannot be a part of one."
            raise InvalidDatasetRef(detail, param=param, suggestion="Leave the part out; it is then carved from the dataset.")
        return JobInput(ref=text)
    if text.startswith(FILE_SCHEME):
        path = _read_path(text, param, data_roots)
        return JobInput(ref=f"{FILE_SCHEME}{path}", filename=path.name, bytes=_check_file(path, param))
    shown = text if len(text) <= 80 else text[:77] + "..."
    raise InvalidDatasetRef(f"{shown!r} is no dataset reference.", param=param, suggestion=SUGGESTION)


def _read_path(text: str, param: str, data_roots: Sequence[Path]) -> Path:
    written = text.removeprefix(FILE_SCHEME).removeprefix("//")
    path = Path(written)
    if len(written) > 4096 or "\0" in written or not path.is_absolute() or ".." in path.parts:
        detail = "A file: reference is an absolute path without '..'."
        raise InvalidDatasetRef(detail, param=param, suggestion="For example file:/data/train.parquet.")
    return resolve(path, param, data_roots)


def _check_file(path: Path, param: str) -> int:
    """The size of the regular file at `path`, whose two ends must be those of a dataset."""
    skimmer = DatasetSkimmer(param)
    try:
        # A FIFO would block the opening for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidDatasetRef("The reference leads to something that is not a regular file.", param=param, suggestion=SUGGESTION)
            skimmer.feed(file.read(TAIL_BYTES))
            if status.st_size > TAIL_BYTES:
                file.seek(max(TAIL_BYTES, status.st_size - TAIL_BYTES))
                skimmer.feed(file.read(TAIL_BYTES))
    except OSError as error:
        raise InvalidDatasetRef(f"The file cannot be read: {error.strerror}.", param=param, suggestion=SUGGESTION) from None
    skimmer.finish()
    if path.suffix.lower() != skimmer.suffix:
        # The trainer reads the file in its place, and goes by its name.
        raise InvalidDatasetRef("The file's name does not say what it is.", param=param, suggestion=f"Let it end with {skimmer.suffix}.")
    return status.st_size
