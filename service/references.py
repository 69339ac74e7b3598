"""References: how a client names a file that it does not send. From text to parts, and which schemes are open here."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from typing_extensions import TypeAliasType

Scheme = TypeAliasType("Scheme", Literal["builtin", "id", "file", "https", "s3", "hf"])
SCHEMES: tuple[Scheme, ...] = get_args(Scheme.__value__)
# Where the files are elsewhere; http: goes with the scheme https, for the hosts that the settings name.
REMOTE = ("https", "http", "s3", "hf")
MAX_CHARACTERS = 4096
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
DIGEST_MARK = "#sha256="


@dataclass(frozen=True)
class Reference:
    """`scheme:rest`, and the sha256 that the file must have where the text ended with `#sha256=` and 64 hexadecimal digits."""

    scheme: str
    rest: str
    sha256: str | None = None

    @property
    def text(self) -> str:
        return f"{self.scheme}:{self.rest}"

    @property
    def remote(self) -> bool:
        return self.scheme in REMOTE


def parse(text: str) -> Reference:
    """Raises ValueError, with a sentence for the client."""
    scheme, colon, rest = text.partition(":")
    if not colon or len(text) > MAX_CHARACTERS:
        raise ValueError(f"{_shorten(text)!r} is no reference.")
    rest, mark, digest = rest.rpartition(DIGEST_MARK) if DIGEST_MARK in rest else (rest, "", "")
    if mark and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{DIGEST_MARK} is followed by 64 hexadecimal digits, and {_shorten(digest)!r} is something else.")
    return Reference(scheme.lower(), rest, digest.lower() or None)


def to_shown(text: str) -> str:
    """`text` as logs, events and answers have it: the query of a URL may hold a signature."""
    address, query, _ = text.partition("?")
    return f"{address}?…" if query and text.startswith(("https:", "http:")) else text


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
