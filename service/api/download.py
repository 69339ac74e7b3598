"""A file of the store as a response: strong ETag, conditions and one byte range (RFC 9110, sections 13 and 14), streamed."""

import re

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from service.api.problems import RangeNotSatisfiable
from service.jobs.job import Artifact
from service.storage.store import ObjectStore

_RANGE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.IGNORECASE)
_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


def to_file_response(request: Request, store: ObjectStore, artifact: Artifact, disposition: str) -> Response:
    """`artifact`, whole or the part that the request asks for, or 304. Raises RangeNotSatisfiable."""
    etag = f'"{artifact.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'{disposition}; filename="{artifact.name}"',
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    # A file that has gone is an error before the first header, not a broken body after it.
    if store.size(artifact.key) != artifact.bytes:
        raise RuntimeError(f"{artifact.key} has not the size that it was published with")
    start, end, status = 0, artifact.bytes, 200
    selected = _select_range(request, etag, artifact.bytes) if request.method == "GET" else None
    if selected is not None:
        (start, end), status = selected, 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.bytes}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=200, headers=headers, media_type=artifact.media_type)
    return StreamingResponse(store.open_range(artifact.key, start, end), status, headers, artifact.media_type)


def _matches(condition: str | None, etag: str) -> bool:
    """Whether an If-None-Match names `etag`; its comparison is the weak one."""
    if condition is None:
        return False
    return condition.strip() == "*" or etag in _ENTITY_TAG.findall(condition)


def _select_range(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of the one range that is asked for; None where the whole file is to be sent.

    Several ranges and malformed ones are ignored, as the RFC allows; so is a range whose If-Range names another version.
    """
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= end:
        detail = f"The file has {size:,} bytes; the range {match[0].strip()!r} has none of them."
        headers = {"Content-Range": f"bytes */{size}"}
        raise RangeNotSatisfiable(detail, param="Range", suggestion="Ask for bytes that are there, or for the whole file.", headers=headers)
    return start, end
