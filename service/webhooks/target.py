"""Which addresses a client may name. What a host's name leads to is looked at when something is sent, each time anew."""

import socket
from collections.abc import Collection

import httpx

from service.fetching.address import AddressGuard, AddressRefused, effective_port, is_public

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
    guard = AddressGuard(private_hosts)
    guard.check_url(url)
    if _is_private_literal(url.host) and not guard.may_be_private(url.host, effective_port(url)):
        raise AddressRefused(f"{url.host} is no host of the public internet.")


def _is_private_literal(host: str) -> bool:
    """Whether it is an address as it stands, in any of the forms that resolvers read (127.1, 0x7f000001), or loopback's own name."""
    if ":" in host:
        return not is_public(host)
    host = host.removesuffix(".")
    if host.rpartition(".")[2] == "localhost":
        return True
    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        return False
