"""How a client says which bytes it expects: `#sha256=...` behind a reference, `?sha256=`, Repr-Digest and Content-Digest (RFC 9530)."""

import base64
import binascii
import re

from service.api.problems import InvalidDatasetRef, InvalidModelRef, InvalidRequest
from service.data_roots import BUILTIN, MODEL_REF
from service.jobs.job import JobInput

SUFFIX = "#sha256="
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_MEMBER = re.compile(r"(?:^|,)\s*sha-256\s*=\s*(:[^:]*:)?", re.IGNORECASE)


def split_digest(text: str, param: str) -> tuple[str, str | None]:
    """A reference and the sha256 that it expects. Raises InvalidModelRef or InvalidDatasetRef."""
    reference, mark, digest = text.rpartition(SUFFIX)
    if not mark:
        return text, None
    if not _HEX.fullmatch(digest):
        refusal = InvalidModelRef if param == MODEL_REF else InvalidDatasetRef
        detail = f"{SUFFIX} is not followed by a sha256, which has 64 hexadecimal digits."
        raise refusal(detail, param=param, suggestion="Write it as sha256sum does, or leave it out.")
    return reference, digest.lower()


def expecting(found: JobInput, sha256: str, param: str) -> JobInput:
    """`found`, of which the worker will expect the digest. Raises InvalidDatasetRef of what is no file."""
    if found.ref in BUILTIN:
        detail = f"{found.ref} is no file, and has no sha256."
        raise InvalidDatasetRef(detail, param=param, suggestion=f"Leave {SUFFIX} out.")
    return found.model_copy(update={"sha256": sha256})


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
