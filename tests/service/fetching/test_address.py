"""The address guard against IANA's registries, read as plain numbers, and against every way to write loopback."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.fetching.address import AddressGuard, AddressRefused, is_public, resolve_by_system

# IANA's special-purpose registries of both families, and multicast: (network, bits of its prefix) of what is not globally reachable.
# Anycast addresses for one protocol inside 192.0.0.0/24 and 2001::/23 are, but none has files; 192.88.99.0/24 and 2002::/16 lead on.
SPECIAL_4 = [
    ("0.0.0.0", 8), ("10.0.0.0", 8), ("100.64.0.0", 10), ("127.0.0.0", 8), ("169.254.0.0", 16), ("172.16.0.0", 12), ("192.0.0.0", 24),  # noqa: S104
    ("192.0.2.0", 24), ("192.88.99.0", 24), ("192.168.0.0", 16), ("198.18.0.0", 15), ("198.51.100.0", 24), ("203.0.113.0", 24),
    ("224.0.0.0", 4), ("240.0.0.0", 4),
]  # fmt: skip
SPECIAL_6 = [("2001::", 23), ("2001:db8::", 32), ("2002::", 16), ("3fff::", 20)]
MAPPED, NAT64 = int(IPv6Address("::ffff:0:0")), int(IPv6Address("64:ff9b::"))


def is_global_4(number: int) -> bool:
    return not any(number >> (32 - bits) == int(IPv4Address(network)) >> (32 - bits) for network, bits in SPECIAL_4)


def is_global_6(number: int) -> bool:
    if number >> 32 in {MAPPED >> 32, NAT64 >> 32}:
        return is_global_4(number & 0xFFFFFFFF)
    special = any(number >> (128 - bits) == int(IPv6Address(network)) >> (128 - bits) for network, bits in SPECIAL_6)
    return number >> 125 == 1 and not special


NEAR_SPECIAL_4 = st.builds(
    lambda network, low: int(IPv4Address(network[0])) | low % 2 ** (32 - network[1]), st.sampled_from(SPECIAL_4), st.integers(0, 2**32 - 1)
)
ANY_4 = st.one_of(st.integers(0, 2**32 - 1), NEAR_SPECIAL_4)
NEAR_SPECIAL_6 = st.builds(
    lambda network, low: int(IPv6Address(network[0])) | low % 2 ** (128 - network[1]),
    st.sampled_from(SPECIAL_6),
    st.integers(0, 2**128 - 1),
)
ANY_6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.integers(2**125, 2**126 - 1),
    NEAR_SPECIAL_6,
    st.builds(lambda base, low: base | low, st.sampled_from([0, MAPPED, NAT64, int(IPv6Address("2002::"))]), ANY_4),
)


@given(ANY_4)
def test_an_ipv4_address_is_public_where_the_registry_says_so_also_inside_an_ipv6_address(number: int) -> None:
    expected = is_global_4(number)
    assert is_public(str(IPv4Address(number))) == expected
    assert is_public(str(IPv6Address(MAPPED | number))) == expected
    assert is_public(f"::ffff:{IPv4Address(number)}") == expected
    assert is_public(str(IPv6Address(NAT64 | number))) == expected
    # The old IPv4-compatible form, 6to4 and Teredo are nobody's, whatever they carry.
    assert not is_public(str(IPv6Address(number)))
    assert not is_public(str(IPv6Address((0x2002 << 112) | (number << 80) | 1)))
    assert not is_public(str(IPv6Address((0x20010000 << 96) | (number << 64) | (number ^ 0xFFFFFFFF))))


@given(ANY_6)
@example(int(IPv6Address("fe80::1")))
@example(int(IPv6Address("fec0::1")))
@example(int(IPv6Address("ff02::1")))
@example(int(IPv6Address("64:ff9b:1::1")))
def test_an_ipv6_address_is_public_where_the_registry_says_so(number: int) -> None:
    assert is_public(str(IPv6Address(number))) == is_global_6(number)
    assert not is_public(f"{IPv6Address(number)}%1")


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "2130706433", "8.8.8.8/32", "8.8.8.8 ", "[2606:4700::1111]"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


LOOPBACK = (
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0", "localhost",  # noqa: S104
    "::1", "::", "::ffff:127.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:ffff:127.0.0.1", "169.254.169.254", "2852039166", "0xa9fea9fe",
    "::ffff:a9fe:a9fe", "fe80::1%lo", "10.0.0.1", "fd00::1",
)  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_no_way_to_write_a_private_address_gets_through(host: str) -> None:
    """By the system's own resolver, which knows more ways than we do; some of them it does not know here."""
    with pytest.raises((AddressRefused, OSError)):
        asyncio.run(AddressGuard().addresses(host, 443))


@pytest.mark.parametrize("host", ["a" * 64, "a..b", ".", "a" * 300])
def test_a_name_that_cannot_be_has_no_address(host: str) -> None:
    with pytest.raises(socket.gaierror):
        asyncio.run(resolve_by_system(host, 443))


def resolving_to(*addresses: str) -> AddressGuard:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return AddressGuard(("minio.internal", "127.0.0.1:8080", "[::1]:8080"), resolve)


def test_one_private_address_among_public_ones_is_one_too_many() -> None:
    assert asyncio.run(resolving_to("8.8.8.8", "2606:4700::1111").addresses("example.org", 443)) == ("8.8.8.8", "2606:4700::1111")
    for private in ("10.0.0.1", "::1", "fe80::1%2", "::ffff:10.0.0.1"):
        with pytest.raises(AddressRefused) as refused:
            asyncio.run(resolving_to("8.8.8.8", private).addresses("example.org", 443))
        # What the name leads to is nobody's business.
        assert private not in str(refused.value)


def test_a_host_without_an_address_is_no_host() -> None:
    with pytest.raises(socket.gaierror):
        asyncio.run(resolving_to().addresses("example.org", 443))


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("minio.internal", 1, True),
        ("127.0.0.1", 8080, True),
        ("::1", 8080, True),
        ("127.0.0.1", 8081, False),
        ("::1", 80, False),
        ("x.minio.internal", 1, False),
        ("minio.internal.", 1, False),
        ("2130706433", 8080, False),
    ],
)
def test_named_hosts_may_be_private_as_they_are_written(host: str, port: int, expected: bool) -> None:
    guard = resolving_to("127.0.0.1")
    assert guard.may_be_private(host, port) == expected
    if expected:
        assert list(asyncio.run(guard.addresses(host, port))) == ["127.0.0.1"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "ftp://example.org/", "//example.org/", "https:///x", "https://user@example.org/", "https://u:p@example.org/",
        "https://example.org:0/", "https://example.org:70000/", "http://minio.internal.evil.org/", "http://127.0.0.1:8081/",
        "http://user:p@minio.internal/", "file:///etc/passwd", "/x",
        "https://a%20b/", "https://[fe80::1%25lo]/", "https://x%00y/", "https://" + "a." * 130 + "org/", "https://127.1/", "https://0x7f.1/",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_asked_is_refused_before_anybody_is(url: str) -> None:
    with pytest.raises(AddressRefused):
        resolving_to("8.8.8.8").check_url(httpx.URL(url))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://example.org:8443/x?y",
        "https://xn--exmple-cua.org/",
        "https://exämple.org/",
        "https://[2606:4700::1111]/",
        "http://minio.internal/",
        "http://[::1]:8080/",
    ],
)
def test_other_urls_pass(url: str) -> None:
    resolving_to("8.8.8.8").check_url(httpx.URL(url))
    assert httpx.URL(url).host
