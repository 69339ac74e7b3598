"""Which addresses may be named: every way to write loopback is refused where it can be seen."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetching.address import AddressRefused
from service.webhooks.target import MAX_URL, check_target

LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.0.1.", "0x7f000001", "0x7f.1", "2130706433", "017700000001", "0", "0.0.0.0",  # noqa: S104
    "localhost", "LOCALHOST", "localhost.",
    "a.localhost", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "①②⑦.0.0.1", "127。0。0。1",
]  # fmt: skip
PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "[fe80::1]",
    "[fd00::1]",
    "[fe80::1%25eth0]",
]


@pytest.mark.parametrize("host", LOOPBACK + PRIVATE)
@pytest.mark.parametrize("form", ["https://{}/hook", "https://{}:8443/", "http://{}/hook"])
def test_private_literals_are_refused(host: str, form: str) -> None:
    with pytest.raises(AddressRefused):
        check_target(form.format(host), ())


@pytest.mark.parametrize(
    "url",
    [
        "", "hook", "/hook", "https://", "https:///hook", "ftp://example.org", "file:///etc/passwd", "http://example.org/",
        "HTTP://example.org",
        "https://user@example.org/", "https://user:secret@example.org/", "https://example.org/#part", "https://example.org/#",
        "https://example.org:0/", "https://example.org:99999/", "https://example.org:port/", "https://example.org/\n",
        "https://example.org/\x00", "https://[::1/", "https://example.org/" + "a" * MAX_URL, "javascript:alert(1)",
    ],
)  # fmt: skip
def test_what_is_no_https_address_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused) as refusal:
        check_target(url, ())
    assert str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "https://example.org:8443/a/b?token=c",
        "https://93.184.215.14/",
        "https://[2606:4700::1111]/",
        "https://müller.example/",
    ],
)
def test_public_addresses_are_taken(url: str) -> None:
    assert check_target(url, ()) is None  # type: ignore[func-returns-value]


def test_a_private_host_is_taken_where_the_operator_says_so() -> None:
    for url in ("http://127.0.0.1:9000/hook", "https://127.0.0.1:9000/hook", "http://hooks.internal/"):
        assert check_target(url, ("127.0.0.1:9000", "hooks.internal")) is None  # type: ignore[func-returns-value]
    for url in ("http://127.0.0.1:9001/hook", "https://127.0.0.1/", "http://u@127.0.0.1:9000/", "http://hooks.internal.evil.example/"):
        with pytest.raises(AddressRefused):
            check_target(url, ("127.0.0.1:9000", "hooks.internal"))


@given(st.text() | st.text().map(lambda text: f"https://{text}") | st.text().map(lambda text: f"https://example.org/{text}"))
def test_any_text_is_taken_or_refused(text: str) -> None:
    with suppress(AddressRefused):
        check_target(text, ())
        assert text.lower().startswith("https://")
