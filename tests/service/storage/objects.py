"""Objects for tests, which have their bytes at hand rather than a file or a stream."""

import tempfile
from pathlib import Path

from service.storage.store import ObjectStore


def put_bytes(store: ObjectStore, key: str, data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        store.put_file(key, Path(file.name))
