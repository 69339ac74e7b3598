"""Clients that mean harm on the level of HTTP itself: the service answers or hangs up, keeps nothing, and goes on serving others."""

import gzip
import socket
import time
from contextlib import ExitStack

import pytest

from tests.service.api.live import LiveService

SLOW_CLIENTS = 150
HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def connect(service: LiveService) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=20)


def answer_to(service: LiveService, head: bytes) -> bytes:
    """The first line of the answer; nothing where the service has hung up."""
    with connect(service) as client:
        try:
            client.sendall(head)
            return client.recv(65536).partition(b"\r\n")[0]
        except ConnectionError:
            return b""


HEADERS = {
    "one of a megabyte": HEAD + b"X-Large: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "a hundred thousand": HEAD + b"X-One: a\r\n" * 100_000 + b"\r\n",
    "a line without an end": b"GET /" + b"a" * 1_000_000,
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length that is no number": HEAD + b"Content-Length: 1e3\r\n\r\n",
    "a length and chunks": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/jobs HTTP/1.1\r\n\r\n",
    "a name with a space": HEAD + b"X Bad: a\r\n\r\n",
    "a folded line": HEAD + b"X-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a NUL": HEAD + b"X-Bad: a\x00b\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADERS.values(), ids=HEADERS)
def test_malformed_headers_are_refused_or_hung_up_on(service: LiveService, head: bytes) -> None:
    line = answer_to(service, head)
    assert line == b"" or line.split()[1].startswith(b"4"), line
    assert service.client.get("/livez").is_success


def test_a_compressed_body_is_never_expanded(service: LiveService) -> None:
    """A hundred megabytes of zeros in a tenth of one: what is not a form as it stands is refused as none."""
    bomb = gzip.compress(bytes(100_000_000), 9)
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Encoding": "gzip"}
    response = service.client.post("/v1/jobs", content=bomb, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_multipart")
    assert service.left_behind() == []


def test_slow_clients_hold_up_nobody_else(service: LiveService) -> None:
    """Heads and bodies that never end, a few bytes at a time."""
    body = HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n--x\r\nContent-Disposition: form-data; "
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(service)) for _ in range(SLOW_CLIENTS)]
        for number, client in enumerate(clients):
            client.sendall(body if number % 2 else HEAD)
        for _ in range(5):
            for client in clients:
                client.sendall(b"a")
            started = time.monotonic()
            assert service.client.get("/v1/jobs").is_success
            assert time.monotonic() - started < 2
    assert service.client.get("/livez").is_success
    assert service.left_behind() == []
