"""The header Retry-After of whoever the service asks: of a host that has a file, of a receiver of webhooks."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that the header asks for, as a number of seconds or as a date (RFC 9110, 10.2.3); None where it says neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
        # All dates of HTTP are in UTC, whether they say so or not.
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
