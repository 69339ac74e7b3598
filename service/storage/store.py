"""`ObjectStore`: the only caller of the object store. An object is seen whole or not at all."""

import contextlib
import math
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import obstore
from obstore.store import LocalStore

if TYPE_CHECKING:
    # The stub has this class; the module has not.
    from obstore import AsyncWritableFile

CHUNK_BYTES = 1024 * 1024


class ObjectWriter:
    """Takes an object in chunks. It appears when the `async with` block ends without an exception; otherwise nothing stays."""

    def __init__(self, file: "AsyncWritableFile") -> None:
        self._file = file

    async def write(self, chunk: bytes) -> None:
        await self._file.write(chunk)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Closing with an exception aborts; a plain close() publishes.
        await self._file.__aexit__(exc_type, exc_value, traceback)


class ObjectStore:
    """Objects under `root`, a folder on a local disk; keys come from `service.storage.keys`.

    Reading a key that does not exist raises FileNotFoundError.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._store = LocalStore(root, mkdir=True, automatic_cleanup=True)

    def put_file(self, key: str, path: Path) -> None:
        obstore.put(self._store, key, path)

    def open_writer(self, key: str) -> ObjectWriter:
        return ObjectWriter(obstore.open_writer_async(self._store, key, buffer_size=CHUNK_BYTES, max_concurrency=2))

    def get_to_file(self, key: str, path: Path) -> None:
        result = obstore.get(self._store, key)
        with path.open("wb") as file:
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                file.write(chunk)

    async def open_range(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes `start` to `end` (exclusive) in chunks."""
        if start >= end:
            return
        result = await obstore.get_async(self._store, key, options={"range": (start, end)})
        async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)

    def check_writable(self) -> None:
        """Raises OSError where objects cannot be stored."""
        if not os.access(self._root, os.W_OK | os.X_OK):
            raise PermissionError(f"{self._root} is not a writable folder")

    def exists(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        return obstore.head(self._store, key)["size"]

    def copy(self, key: str, new_key: str) -> None:
        """A second object with the same bytes; on a local disk it takes no room of its own."""
        obstore.copy(self._store, key, new_key)

    def list(self, prefix: str) -> list[str]:
        """Keys of all complete objects under the folder `prefix`, sorted."""
        return sorted(meta["path"] for page in obstore.list(self._store, prefix) for meta in page)

    def folders(self, prefix: str) -> set[str]:
        """Names of the folders directly under `prefix`."""
        root = self._root / prefix
        return {folder.name for folder in root.iterdir() if folder.is_dir()} if root.is_dir() else set()

    def idle_folders(self, prefix: str, idle_s: float) -> set[str]:
        """Names of the folders directly under `prefix` in which nothing was written for so long, not even a part of an object."""
        root, before = self._root / prefix, time.time() - idle_s
        return {folder.name for folder in (root.iterdir() if root.is_dir() else ()) if _last_written(folder) < before}

    def delete(self, key: str) -> None:
        """Removes the object; it need not exist."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def delete_prefix(self, prefix: str) -> None:
        """Removes every object under the folder `prefix`; it need not exist, and somebody else may be removing it too."""
        for key in self.list(prefix):
            self.delete(key)
        # The local store leaves empty folders, and the staged file of an upload that a killed process never ended.
        shutil.rmtree(self._root / prefix, ignore_errors=True)


def _last_written(folder: Path) -> float:
    """When anything under `folder` last changed; infinity where it is going away now, or not ours to read."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:
        return math.inf
