"""Files of this machine that a request may name: those under a data root. Asked when a reference comes, and again when it is used."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from compressor.errors import ClientError

FILE_SCHEME = "file:"
BUILTIN = ("builtin:digits",)
MODEL_REF = "model_ref"


class DatasetRefNotAllowed(ClientError):
    code: ClassVar[str] = "dataset_ref_not_allowed"
    title: ClassVar[str] = "The dataset reference is not allowed"
    status: ClassVar[int] = 422


class ModelRefNotAllowed(ClientError):
    code: ClassVar[str] = "model_ref_not_allowed"
    title: ClassVar[str] = "The model reference is not allowed"
    status: ClassVar[int] = 422


def suggest(param: str) -> str:
    """Which references the part `param` takes."""
    builtin = f"{', '.join(BUILTIN)} and, " if param == "dataset_ref" else ""
    kind = "model" if param == MODEL_REF else "dataset"
    return f"{param} takes {builtin}under a folder that `serve --data-root` names, {FILE_SCHEME}PATH; or id:ID of POST /v1/{kind}s."


def resolve(path: Path, param: str, data_roots: Sequence[Path]) -> Path:
    """The real path, all symbolic links followed. What lies outside the data roots is never told apart from nothing.

    Raises: ModelRefNotAllowed or, of another part, DatasetRefNotAllowed where it is not under a data root.
    """
    resolved = Path(os.path.realpath(path))
    if not any(resolved.is_relative_to(root) for root in data_roots):
        opened = "None is open." if not data_roots else "It is not under one."
        refusal = ModelRefNotAllowed if param == MODEL_REF else DatasetRefNotAllowed
        raise refusal(f"Only files under a data root may be named. {opened}", param=param, suggestion=suggest(param))
    return resolved
