"""One file of a request's body straight into the store: counted, skimmed and hashed while it passes, never held whole."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.requests import Request

from service.api.problems import PayloadTooLarge
from service.framing.model_kinds import ModelFileSkimmer
from service.framing.skimmers import DatasetSkimmer, Skimmer
from service.storage.store import ObjectStore

MODEL = "model"
UPLOAD_LIMIT = "BAYESPRESS_MAX_UPLOAD_BYTES, or with a key that may send more"


@dataclass(frozen=True)
class Received:
    """A file that is complete in the store."""

    key: str
    bytes: int
    sha256: str


class _Tally:
    """Counts, skims and hashes one file while it passes."""

    def __init__(self, name: str, max_bytes: int | None) -> None:
        self.name = name
        self.num_bytes = 0
        self.digest = hashlib.sha256()
        self.skimmer: Skimmer = ModelFileSkimmer(name) if name == MODEL else DatasetSkimmer(name)
        self._max_bytes = max_bytes

    async def passing(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.num_bytes += len(chunk)
            if self._max_bytes is not None and self.num_bytes > self._max_bytes:
                raise model_too_large(self._max_bytes, self.name)
            self.skimmer.feed(chunk)
            self.digest.update(chunk)
            yield chunk
        self.skimmer.finish()


async def receive_file(
    chunks: AsyncIterator[bytes], name: str, to_key: Callable[[str], str], store: ObjectStore, max_bytes: int | None = None
) -> Received:
    """Stores the part `name` under the key that `to_key` gives for its suffix.

    Raises: InvalidModel, InvalidDataset or PayloadTooLarge as soon as the bytes that have come show the fault; nothing is then stored.
    """
    tally = _Tally(name, max_bytes)
    passing = tally.passing(chunks)
    # The key ends with what the bytes are, not with what the client calls them, so the first ones are waited for.
    head = b""
    async for chunk in passing:
        head += chunk
        if tally.skimmer.suffix is not None:
            break
    key = to_key(tally.skimmer.suffix or "")
    async with store.open_writer(key) as writer:
        await writer.write(head)
        async for chunk in passing:
            await writer.write(chunk)
    return Received(key, tally.num_bytes, tally.digest.hexdigest())


async def read_body(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body in chunks, refused before the first where its length is said to be too large."""
    if declared_bytes(request) > max_bytes:
        raise body_too_large(max_bytes)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise body_too_large(max_bytes)
        yield chunk


def declared_bytes(request: Request) -> int:
    """What Content-Length says; 0 where the body comes in chunks."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


def body_too_large(max_bytes: int) -> PayloadTooLarge:
    return too_large("The body", max_bytes, "body", UPLOAD_LIMIT)


def model_too_large(max_bytes: int, param: str) -> PayloadTooLarge:
    return too_large("The model", max_bytes, param, "BAYESPRESS_MAX_MODEL_BYTES")


def too_large(what: str, max_bytes: int, param: str, variable: str | None = None) -> PayloadTooLarge:
    suggestion = f"Send less, or let the service be started with a larger {variable}." if variable else "Send less."
    return PayloadTooLarge(f"{what} has more than {max_bytes:,} bytes.", param=param, suggestion=suggestion)
