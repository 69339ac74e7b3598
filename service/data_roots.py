"""Files of this machine that a request may name: those under a data root. Asked when a reference comes, and again when it is used."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from compressor.errors import ClientError

FILE_SCHEME = "file:"
BUILTIN = ("builtin:digits",)
SUGGESTION = f"The references are {', '.join(BUILTIN)} and, under a folder that `serve --data-root` names, {FILE_SCHEME}PATH."


class DatasetRefNotAllowed(ClientError):
    code: ClassVar[str] = "dataset_ref_not_allowed"
    title: ClassVar[str] = "The dataset reference is not allowed"
    status: ClassVar[int] = 422


def resolve(path: Path, param: str, data_roots: Sequence[Path]) -> Path:
    """The real path, all symbolic links followed. What lies outside the data roots is never told apart from nothing.

    Raises: DatasetRefNotAllowed where it is not under a data root.
    """
    resolved = Path(os.path.realpath(path))
    if not any(resolved.is_relative_to(root) for root in data_roots):
        opened = "None is open." if not data_roots else "It is not under one."
        raise DatasetRefNotAllowed(f"Only files under a data root may be named. {opened}", param=param, suggestion=SUGGESTION)
    return resolved
