"""A file of the store as a response: strong ETag, conditions, digests and one byte range (RFC 9110, RFC 9530), streamed.

Of several ranges in one request none is taken, and the whole file is sent, as section 14.2 allows; so it is where the range is malformed.
"""

import base64
import re

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from service.api.conditions import check_conditions, validation_headers
from service.api.problems import RangeNotSatisfiable
from service.jobs.job import Artifact
from service.storage.store import ObjectStore

BINARY = {"schema": {"type": "string", "format": "binary"}}  # in the description of a response
_RANGE = re.compile(r"bytes=[ \t]*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))[ \t]*", re.IGNORECASE)


def to_file_response(request: Request, store: ObjectStore, artifact: Artifact, disposition: str) -> Response:
    """`artifact`, whole or the part that the request asks for, or 304. Raises PreconditionFailed, RangeNotSatisfiable."""
    etag = f'"{artifact.sha256}"'
    unchanged = check_conditions(request, etag)
    if unchanged is not None:
        return unchanged
    check_present(store, artifact)
    digest = f"sha-256=:{base64.b64encode(bytes.fromhex(artifact.sha256)).decode()}:"
    headers = {
        **validation_headers(etag),
        "Accept-Ranges": "bytes",
        "Repr-Digest": digest,
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'{disposition}; filename="{artifact.name}"',
    }
    if request.method == "HEAD":
        return Response(status_code=200, headers={**headers, "Content-Length": str(artifact.bytes)}, media_type=artifact.media_type)
    selected = _select_range(request, etag, artifact.bytes)
    (start, end), status = selected or (0, artifact.bytes), 206 if selected else 200
    headers["Content-Length"] = str(end - start)
    if selected:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.bytes}"
    else:
        # Of the bytes that are sent: those of a part are known only when they have gone.
        headers["Content-Digest"] = digest
    return StreamingResponse(store.open_range(artifact.key, start, end), status, headers, artifact.media_type)


def check_present(store: ObjectStore, artifact: Artifact) -> None:
    """A file that has gone is an error before the first header, not a broken body after it."""
    if store.size(artifact.key) != artifact.bytes:
        raise RuntimeError(f"{artifact.key} has not the size that it was published with")


def _select_range(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of the one range that is asked for; None where the whole file is to be sent.

    It is also where If-Range names another version; weak tags and dates are none that could be this one.
    """
    ranges = request.headers.getlist("range")
    match = _RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    if match is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last, suffix = match.groups()
    if last and int(last) < int(first):
        return None
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
        if not size and int(suffix):
            # Satisfiable, but no Content-Range can say which bytes of an empty file these are.
            return None
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        detail = f"The file has {size:,} bytes; the range {match[0].strip()!r} has none of them."
        headers = {"Content-Range": f"bytes */{size}"}
        raise RangeNotSatisfiable(detail, param="Range", suggestion="Ask for bytes that are there, or for the whole file.", headers=headers)
    return start, end
