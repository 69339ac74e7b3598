"""One attempt to deliver a message: a POST, and what came of it."""

import asyncio
from contextlib import suppress
from datetime import datetime

import httpx

from compressor import __version__
from service.fetching.address import AddressRefused
from service.fetching.retry_after import parse_retry_after
from service.webhooks.deliveries.delivery import Claim, DeliveryError, Outcome
from service.webhooks.signing import signed_headers

TIMEOUT_S = 15.0
MAX_RESPONSE_BYTES = 4096
# Only these ask for patience (RFC 9110 and 6585); of others the header says something else, or nothing.
PATIENT = frozenset({429, 503})


async def attempt(client: httpx.AsyncClient, claim: Claim, now: datetime, timeout_s: float = TIMEOUT_S) -> Outcome:
    """`client` must follow no redirects; one is no success."""
    body = claim.delivery.body.encode()
    headers = signed_headers(claim.endpoint.signing_secrets(now), claim.delivery.id, now, body)
    # A new connection each time: its address is looked at anew, and none is found dead after hours.
    headers |= {"content-type": "application/json", "user-agent": f"bayespress/{__version__}", "connection": "close"}
    outcome = None
    try:
        async with asyncio.timeout(timeout_s), client.stream("POST", claim.endpoint.url, content=body, headers=headers) as response:
            outcome = _to_outcome(response, now)
            await _skim(response)
    except (AddressRefused, TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
        # What the receiver has answered counts, whatever becomes of the rest of its response.
        return outcome or Outcome(error=_name_error(error))
    return outcome


def _to_outcome(response: httpx.Response, now: datetime) -> Outcome:
    asked = response.headers.get("retry-after") if response.status_code in PATIENT else None
    return Outcome(status=response.status_code, retry_after_s=parse_retry_after(asked, now))


async def _skim(response: httpx.Response) -> None:
    """Reads a short response to its end, so that its sender meets no broken pipe, and leaves a long one."""
    size = 0
    with suppress(httpx.HTTPError):
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                return


def _name_error(error: Exception) -> DeliveryError:
    if isinstance(error, (AddressRefused, httpx.InvalidURL)):
        return "refused"
    return "timeout" if isinstance(error, (TimeoutError, httpx.TimeoutException)) else "connection_failed"
