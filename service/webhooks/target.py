"""Which addresses a client may name. What a host's name leads to is looked at when something is sent, each time anew."""

from collections.abc import Collection

import httpx

from service.fetching.address import AddressGuard, AddressRefused

MAX_URL = 2048


def check_target(text: str, private_hosts: Collection[str]) -> None:
    """Raises AddressRefused, which says why."""
    if len(text) > MAX_URL:
        raise AddressRefused(f"A URL has at most {MAX_URL:,} characters.")
    if "#" in text:
        raise AddressRefused("A URL with a fragment is not taken.")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise AddressRefused("It is no https: URL with a host.") from None
    AddressGuard(private_hosts).check_url(url)
