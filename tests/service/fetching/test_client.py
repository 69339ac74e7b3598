"""The guarded client over real sockets: it connects to the address that was looked at, and to nothing else."""

import asyncio
import ssl
from collections.abc import Sequence

import httpx
import pytest

from service.fetching.address import AddressRefused
from service.fetching.client import guarded_client
from tests.service.fetching.stub import Stub, answering


async def get(url: str, hosts: Sequence[str] = (), resolve=None, tls: ssl.SSLContext | None = None, **timeouts: float) -> httpx.Response:
    extra = {} if resolve is None else {"resolve": resolve}
    async with guarded_client(hosts, tls=tls, **extra, **timeouts) as client:
        return await client.get(url)


class Answers:
    """A resolver that gives its answers one after the other, the last one again and again."""

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
def stub():
    with answering(lambda _request: (200, {}, b"hello")) as stub:
        yield stub


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_not_connected_to_however_it_is_written(stub: Stub, host: str) -> None:
    for scheme in ("http", "https"):
        with pytest.raises((AddressRefused, httpx.InvalidURL)):
            asyncio.run(get(f"{scheme}://{host}:{stub.port}/"))
    assert stub.connections == 0


def test_a_named_host_is_connected_to_and_without_the_environments_proxy(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", "/nonexistent")
    answer = asyncio.run(get(f"http://127.0.0.1:{stub.port}/x?y=1", [f"127.0.0.1:{stub.port}"]))
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert [(request.path, request.headers["host"]) for request in stub.requests] == [("/x?y=1", f"127.0.0.1:{stub.port}")]


def test_a_name_is_resolved_once_and_its_address_is_connected_to(stub: Stub) -> None:
    """Rebinding: what the name leads to after it was looked at changes nothing."""
    resolve = Answers(["127.0.0.1"], ["10.0.0.1"])
    answer = asyncio.run(get(f"http://model.test:{stub.port}/", ["model.test"], resolve))
    assert answer.content == b"hello"
    assert resolve.asked == [("model.test", stub.port)]


def test_every_connection_is_looked_at(stub: Stub) -> None:
    """First public, then private: the first answer is not reachable from here, the second is refused."""
    resolve = Answers(["192.0.2.1"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1"])
    for _ in range(3):
        with pytest.raises(AddressRefused):
            asyncio.run(get(f"https://model.test:{stub.port}/", (), resolve))
    assert (stub.connections, len(resolve.asked)) == (0, 3)


def test_where_one_address_does_not_answer_the_next_is_tried(stub: Stub) -> None:
    answer = asyncio.run(get(f"http://model.test:{stub.port}/", ["model.test"], Answers(["::1", "127.0.0.1"])))
    assert answer.content == b"hello"


def test_a_name_without_an_address_and_a_closed_port_are_errors_of_connecting() -> None:
    with pytest.raises(httpx.ConnectError):
        asyncio.run(get("https://model.test/", (), Answers(OSError("no such name"))))
    with pytest.raises(httpx.ConnectError):
        asyncio.run(get("http://127.0.0.1:1/", ["127.0.0.1"]))


def test_a_resolver_that_hangs_is_not_waited_for() -> None:
    async def hang(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(httpx.ConnectTimeout):
        asyncio.run(get("https://model.test/", (), hang, connect_s=0.05))


def test_tls_asks_for_the_name_and_not_for_the_address(tls_stub: Stub, client_tls: ssl.SSLContext) -> None:
    resolve = Answers(["127.0.0.1"])
    answer = asyncio.run(get(f"https://model.test:{tls_stub.port}/", ["model.test"], resolve, client_tls))
    assert answer.content == b"over TLS"
    assert tls_stub.server_names == ["model.test"]
    for name, tls in (("other.test", client_tls), ("model.test", None)):
        with pytest.raises(httpx.ConnectError):
            asyncio.run(get(f"https://{name}:{tls_stub.port}/", [name], resolve, tls))


def test_redirects_are_left_to_the_caller() -> None:
    with answering(lambda _request: (302, {"location": "http://169.254.169.254/"}, b"")) as stub:
        answer = asyncio.run(get(f"http://127.0.0.1:{stub.port}/", ["127.0.0.1"]))
    assert (answer.status_code, answer.has_redirect_location) == (302, True)
