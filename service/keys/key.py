"""`ApiKey`: one row of the keys' table as a frozen value. Of the secret only the digest is kept; the whole text is shown once.

The text of a key is `bp_<id>_<secret>`, both in hexadecimal digits. A secret of 32 random bytes needs no slow hash.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from service.jobs.quotas.quota import NO_QUOTAS, Quotas

_ID_BYTES, _SECRET_BYTES = 8, 32
_TEXT = re.compile(rf"bp_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")


class Scope(StrEnum):
    """What a key may do. Each may what the one before may."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def covers(self, needed: "Scope") -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class ApiKey:
    id: str
    owner: str
    name: str
    scope: Scope
    secret_sha256: str = field(repr=False)
    created_at: datetime
    quotas: Quotas = NO_QUOTAS
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


@dataclass(frozen=True)
class KeyText:
    """A key as a client sends it."""

    id: str
    secret: str = field(repr=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def reveal(self) -> str:
        return f"bp_{self.id}_{self.secret}"


def is_owner(text: str) -> bool:
    """Whether a key may belong to an owner of this name."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", text) is not None


def draw_key() -> KeyText:
    return KeyText(secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES))


def parse_key(text: str) -> KeyText | None:
    match = _TEXT.fullmatch(text)
    return KeyText(*match.groups()) if match else None
