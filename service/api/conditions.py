"""Conditional requests by entity tags (RFC 9110, section 13): If-Match, If-None-Match. There are no dates of modification here."""

import re

from fastapi import Request
from starlette.responses import Response

from service.api.problems import PreconditionFailed

# Weak tags are told apart: If-Match compares strongly (section 8.8.3.2).
_ENTITY_TAG = re.compile(r'((?:W/)?)("[\x21\x23-\x7e\x80-\xff]*")')
_WILDCARD = "*"


def validation_headers(etag: str) -> dict[str, str]:
    """What a response has in common with the 304 in its place."""
    return {"ETag": etag, "Cache-Control": "private, no-cache"}


def check_conditions(request: Request, etag: str) -> Response | None:
    """A 304 where the client has this representation already; None where it is to be sent. Raises PreconditionFailed."""
    if_match = _field(request, "if-match")
    if if_match is not None and if_match != _WILDCARD and etag not in _tags(if_match, weak=False):
        raise PreconditionFailed(
            f"If-Match names another version; this one is {etag}.", param="If-Match", suggestion="Begin anew with this version."
        )
    if_none_match = _field(request, "if-none-match")
    if if_none_match is not None and (if_none_match == _WILDCARD or etag in _tags(if_none_match, weak=True)):
        return Response(status_code=304, headers=validation_headers(etag))
    return None


def _field(request: Request, name: str) -> str | None:
    """A list that may come in several lines."""
    lines = request.headers.getlist(name)
    return ", ".join(lines).strip() if lines else None


def _tags(field: str, *, weak: bool) -> set[str]:
    return {tag for prefix, tag in _ENTITY_TAG.findall(field) if weak or not prefix}
