"""Several files of the store as one ZIP archive, written while it is sent: stored, not deflated, and the same bytes each time."""

import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING
from zipfile import ZipFile, ZipInfo

from service.jobs.job import Artifact
from service.storage.store import ObjectStore

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# The earliest that the format knows; by when a file was written no two archives would be the same.
_DATE = (1980, 1, 1, 0, 0, 0)
# Part of the ETag: another order of members or another writer makes other bytes.
_LAYOUT = b"zip 1\n"


class _Outbox(io.RawIOBase):
    """A file that cannot be rewound, of which `take` takes what was written last."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        before = len(self._written)
        self._written += data
        return len(self._written) - before

    def take(self) -> bytes:
        taken, self._written = bytes(self._written), bytearray()
        return taken


def archive_etag(artifacts: Sequence[Artifact]) -> str:
    """A strong one: the archive follows from the names and the contents of its members."""
    content = hashlib.sha256(_LAYOUT)
    for artifact in artifacts:
        content.update(f"{artifact.name}\0{artifact.sha256}\n".encode())
    return f'"{content.hexdigest()}"'


async def stream_archive(store: ObjectStore, artifacts: Sequence[Artifact]) -> AsyncIterator[bytes]:
    """The bytes of the archive; no more of a file than a chunk is held."""
    outbox = _Outbox()
    with ZipFile(outbox, "w") as archive:
        for artifact in artifacts:
            member = ZipInfo(artifact.name, _DATE)
            # By which the writer sees whether it needs the fields of ZIP64.
            member.file_size = artifact.bytes
            with archive.open(member, "w") as file:
                async for chunk in store.open_range(artifact.key, 0, artifact.bytes):
                    file.write(chunk)
                    yield outbox.take()
    yield outbox.take()
