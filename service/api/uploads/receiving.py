"""One file of a request's body straight into the store: counted, skimmed and hashed while it passes, never held whole."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.requests import Request

from service.api.problems import PayloadTooLarge
from service.framing.tally import Tally
from service.storage.store import ObjectStore

MODEL = "model"
UPLOAD_LIMIT = "BAYESPRESS_MAX_UPLOAD_BYTES, or with a key that may send more"


@dataclass(frozen=True)
class Received:
    """A file that is complete in the store."""

    key: str
    bytes: int
    sha256: str


async def _passing(chunks: AsyncIterator[bytes], tally: Tally, name: str, max_bytes: int | None) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if max_bytes is not None and tally.num_bytes + len(chunk) > max_bytes:
            raise model_too_large(max_bytes, name)
        tally.take(chunk)
        yield chunk
    tally.finish()


async def receive_file(
    chunks: AsyncIterator[bytes], name: str, to_key: Callable[[str], str], store: ObjectStore, max_bytes: int | None = None
) -> Received:
    """Stores the part `name` under the key that `to_key` gives for its suffix.

    Raises: InvalidModel, InvalidDataset or PayloadTooLarge as soon as the bytes that have come show the fault; nothing is then stored.
    """
    tally = Tally(name)
    passing = _passing(chunks, tally, name, max_bytes)
    # The key ends with what the bytes are, not with what the client calls them, so the first ones are waited for.
    head = b""
    async for chunk in passing:
        head += chunk
        if tally.suffix is not None:
            break
    key = to_key(tally.suffix or "")
    async with store.open_writer(key) as writer:
        await writer.write(head)
        async for chunk in passing:
            await writer.write(chunk)
    return Received(key, tally.num_bytes, tally.sha256)


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
