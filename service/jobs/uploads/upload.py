"""`Upload`: a model or a dataset of an owner. Its id follows from its bytes, so that the same bytes are the same upload."""

import hashlib
import time
from collections.abc import Mapping
from datetime import datetime
from secrets import token_hex
from typing import Literal

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeAliasType

UploadKind = TypeAliasType("UploadKind", Literal["model", "dataset"])
# The part of each kind that it cannot be without.
MAIN_PART: dict[UploadKind, str] = {"model": "model", "dataset": "train"}
ID_DIGITS = 40


class UploadedFile(BaseModel):
    """One part of an upload: an object of the store, which other uploads may have as well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    sha256: str
    bytes: int
    filename: str | None = None


class Upload(BaseModel):
    """An upload as it stood when its rows were read. `serial` grows with the time of creation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kind: UploadKind
    serial: str
    created_at: datetime
    used_at: datetime
    files: dict[str, UploadedFile]


def upload_id(kind: UploadKind, files: Mapping[str, UploadedFile]) -> str:
    """`model_` and the beginning of its sha256; `dataset_` and that of a digest of the digests of its parts."""
    if kind == "model":
        digest = files["model"].sha256
    else:
        lines = [f"{part} {file.sha256}\n" for part, file in sorted(files.items())]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return f"{kind}_{digest[:ID_DIGITS]}"


def new_serial() -> str:
    """Sorts in the order of creation, as the ids of jobs do."""
    return f"{time.time_ns():016x}{token_hex(8)}"
