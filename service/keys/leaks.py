"""Finds keys where none may stand: in addresses and in names that go into logs and answers."""

import hmac
import re
from urllib.parse import unquote, unquote_plus

# From the first digit of the secret on, so that a part of a key is found, too.
_KEY = re.compile(r"bp_[0-9a-f]{16}_[0-9a-f]", re.IGNORECASE)


class LeakFinder:
    def __init__(self, admin_key: str | None) -> None:
        self._admin_key = admin_key.encode() if admin_key else None

    def is_in(self, text: str) -> bool:
        return _KEY.search(text) is not None or self._has_admin_key(text.encode("utf-8", "surrogatepass"))

    def is_in_address(self, text: str) -> bool:
        """`text` is percent-encoded. A plus is itself in a path, and a space in most queries."""
        return any(self.is_in(decoded) for decoded in {unquote(text), unquote_plus(text)})

    def _has_admin_key(self, text: bytes) -> bool:
        key = self._admin_key
        if key is None:
            return False
        # Each comparison takes the same time, so the answer's time does not tell a part of the key.
        return any(hmac.compare_digest(text[start : start + len(key)], key) for start in range(len(text) - len(key) + 1))
