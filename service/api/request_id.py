"""The id of a request, by which a client and the log speak of the same one: the client's own where it is sane, else a new one."""

import re
import secrets
from contextvars import ContextVar

from starlette.datastructures import Headers

from service.keys.leaks import LeakFinder

HEADER = "X-Request-ID"
# It stands in a line of the log, in a header and in JSON, and may not leave its place in any of them.
PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:=/+~-]{0,127}"

request_id: ContextVar[str] = ContextVar("request_id")


def choose_request_id(headers: Headers, leaks: LeakFinder) -> str:
    sent = headers.getlist(HEADER)
    is_sane = len(sent) == 1 and re.fullmatch(PATTERN, sent[0]) and not leaks.is_in(sent[0])
    return sent[0] if is_sane else f"req_{secrets.token_hex(16)}"
