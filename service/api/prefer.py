"""`Prefer: wait=N` (RFC 7240): how long a client would like to be kept waiting. What cannot be read is no preference."""

import re
from collections.abc import Sequence

MAX_WAIT_S = 60
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[,;]|$)', re.IGNORECASE)


def preferred_wait_s(fields: Sequence[str] | None) -> int | None:
    """Seconds, at most MAX_WAIT_S, from the values of all the Prefer fields of a request."""
    match = _WAIT.search(",".join(fields or ()))
    return None if match is None else min(int(match[1]), MAX_WAIT_S)
