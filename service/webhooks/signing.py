"""Secrets and signatures by Standard Webhooks 1.0.0: HMAC-SHA256 over `id.timestamp.body`, version v1."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime

PREFIX = "whsec_"
# The specification asks for 24 to 64.
SECRET_BYTES = 32


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def signed_headers(signing_secrets: Iterable[str], message_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
    """The three headers of one attempt, with a signature by each of the secrets."""
    timestamp_s = int(sent_at.timestamp())
    signatures = [sign(secret, message_id, timestamp_s, body) for secret in signing_secrets]
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s), "webhook-signature": " ".join(signatures)}
