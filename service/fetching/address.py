"""THE address guard: no request of a client makes the service speak to a machine that is not public.

A host is resolved once, every address that comes of it is looked at, and the connection goes to such an address, not to the name again,
which could lead elsewhere by then. `2130706433`, `0x7f.1` and `localhost` are looked at as what they stand for.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

GLOBAL_UNICAST = IPv6Network("2000::/3")
# An IPv4 address in its last four bytes (RFC 6052): where a network has no IPv4, public hosts have such ones.
NAT64 = IPv6Network("64:ff9b::/96")
# Of no public host, though the ipaddress of some versions of Python calls them global: IETF's own, 6to4 with its relays, Teredo, examples.
NEVER_PUBLIC = tuple(
    ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
MAX_PORT = 65535
# A name, in its ASCII form, or what may be an address. No zone (%eth0): it is of a link alone.
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}", re.ASCII)


class AddressRefused(Exception):
    """The host is none that may be asked. The text is for clients and never says what the host's address is."""


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses of `host`. Raises OSError where there is none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # no name at all, for example with a label of 64 characters
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(text: str) -> bool:
    """Whether `text` is the address of a host of the public internet; of one that carries an IPv4 address, whether that is."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        carried = _carried(address)
        if carried is not None:
            return is_public(str(carried))
        if address not in GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in NEVER_PUBLIC)


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None


class AddressGuard:
    """`private_hosts` may have any address, and be asked without TLS: names as a URL has them, in lower case, perhaps with a port."""

    def __init__(self, private_hosts: Collection[str] = (), resolve: Resolver = resolve_by_system) -> None:
        self._private_hosts = frozenset(private_hosts)
        self._resolve = resolve

    def may_be_private(self, host: str, port: int) -> bool:
        shown = f"[{host}]" if ":" in host else host
        return not self._private_hosts.isdisjoint({shown, f"{shown}:{port}"})

    def check_url(self, url: httpx.URL) -> None:
        """What can be said of a URL before anybody is asked. Raises AddressRefused."""
        host = url.raw_host.decode("ascii")
        if url.scheme not in {"http", "https"} or not _HOST.fullmatch(host):
            raise AddressRefused("It is no https: URL with the name or the address of a host.")
        if url.userinfo:
            raise AddressRefused("A URL with a user name or a password is not taken.")
        port = effective_port(url)
        if not 0 < port <= MAX_PORT:
            raise AddressRefused(f"There is no port {port}.")
        may_be_private = self.may_be_private(host, port)
        if not may_be_private and not all(map(is_public, _written_addresses(host))):
            raise AddressRefused(f"{host} is no host of the public internet.")
        if url.scheme == "http" and not may_be_private:
            raise AddressRefused(f"{host} may be asked over https: only.")

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """What to connect to. Raises AddressRefused where one of the host's addresses is not public, OSError where it has none."""
        found = await self._resolve(host, port)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if not self.may_be_private(host, port) and not all(map(is_public, found)):
            raise AddressRefused(f"{host} is no host of the public internet.")
        return found


def _written_addresses(host: str) -> list[str]:
    """What `host` stands for where it is a number in one of the ways of writing an address, or loopback's own name (RFC 6761).

    Nobody is asked for it.
    """
    host = host.removesuffix(".")
    if host.rpartition(".")[2] == "localhost":
        return ["127.0.0.1"]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def effective_port(url: httpx.URL) -> int:
    return url.port if url.port is not None else 443 if url.scheme == "https" else 80
