"""Header fields that say which bytes a client expects: Repr-Digest and Content-Digest (RFC 9530)."""

import base64
import binascii
import re

from service.api.problems import InvalidRequest

_MEMBER = re.compile(r"(?:^|,)\s*sha-256\s*=\s*(:[^:]*:)?", re.IGNORECASE)


def read_digest_field(name: str, value: str) -> str | None:
    """The sha256 in a Repr-Digest or Content-Digest field, as hexadecimal digits; None where it has only others. Raises InvalidRequest."""
    match = _MEMBER.search(value)
    if match is None:
        return None
    try:
        digest = base64.b64decode((match[1] or "").strip(":"), validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise InvalidRequest(f"{name} has no sha256 in base64.", param=name, suggestion=f"For example {name}: sha-256=:{'A' * 43}=:.")
    return digest.hex()
