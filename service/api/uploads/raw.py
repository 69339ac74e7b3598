"""A body that is one file, as it is: what it is called, and what its sha256 must be."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request
from python_multipart.multipart import parse_options_header

from service.api.problems import UnsupportedMediaType
from service.api.uploads.digests import read_digest_field
from service.api.uploads.receiving import read_body, receive_file
from service.digests import check_digest
from service.jobs.uploads.upload import UploadedFile
from service.settings import Settings
from service.storage.store import ObjectStore

OCTETS = "application/octet-stream"
FILE_BODY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_MAX_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class RawOptions:
    """`expected`: what must be the sha256, by the parameter or field that says so."""

    filename: str | None
    expected: dict[str, str]


def read_raw_options(
    filename: Annotated[str | None, Query(max_length=_MAX_NAME, description="What the file is called, to be shown.")] = None,
    sha256: Annotated[
        str | None, Query(pattern="^[0-9a-fA-F]{64}$", description="The file's sha256; where it is another, nothing is kept.")
    ] = None,
    content_disposition: Annotated[str | None, Header(description="Its `filename`, where the query names none.")] = None,
    repr_digest: Annotated[str | None, Header(description="`sha-256=:…:` (RFC 9530), as the parameter `sha256`.")] = None,
    content_digest: Annotated[str | None, Header(description="As Repr-Digest.")] = None,
) -> RawOptions:
    fields = {"Repr-Digest": repr_digest, "Content-Digest": content_digest}
    digests = {name: read_digest_field(name, value) for name, value in fields.items() if value is not None}
    digests["sha256"] = sha256 and sha256.lower()
    name = filename if filename is not None else _read_filename(content_disposition)
    return RawOptions(name and _CONTROL.sub("", name), {name: digest for name, digest in digests.items() if digest})


RawOptionsDep = Annotated[RawOptions, Depends(read_raw_options)]


def _read_filename(disposition: str | None) -> str | None:
    filename = parse_options_header(disposition)[1].get(b"filename")
    return None if filename is None else filename.decode("utf-8", "replace")[:_MAX_NAME]


def check_media_type(request: Request, taken: Collection[str], file: str) -> None:
    """One of those, or none. Raises UnsupportedMediaType."""
    sent = request.headers.get("content-type")
    if sent is not None and parse_options_header(sent)[0].lower().decode("latin-1") not in taken:
        detail = f"The Content-Type must be {' or '.join(taken)}, or absent. It is {sent!r}."
        suggestion = f"Send the file as it is, for example with curl -X POST -T {file}."
        raise UnsupportedMediaType(detail, param="Content-Type", suggestion=suggestion)


async def receive_raw(
    request: Request,
    part: str,
    to_key: Callable[[str], str],
    options: RawOptions,
    store: ObjectStore,
    settings: Settings,
    max_bytes: int | None = None,
) -> UploadedFile:
    """Raises: InvalidModel, InvalidDataset, PayloadTooLarge, DigestMismatch, ClientDisconnect."""
    received = await receive_file(read_body(request, settings.max_upload_bytes), part, to_key, store, max_bytes)
    for param, digest in options.expected.items():
        check_digest(received.sha256, digest, param)
    return UploadedFile(key=received.key, sha256=received.sha256, bytes=received.bytes, filename=options.filename)
