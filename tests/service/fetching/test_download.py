"""Downloads from servers that misbehave, over real sockets; every redirect goes through the guard."""

import asyncio
import gzip
import hashlib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from compressor.errors import ClientError, InvalidModel
from service.digests import DigestMismatch
from service.fetching.client import guarded_client
from service.fetching.download import MAX_WAIT_S, download
from service.fetching.errors import ReferenceRefused, ReferenceTooLarge, ReferenceUnreachable
from service.fetching.receiving import Fetched, Receiver, Wanted
from service.fetching.sources import HttpSource
from tests.service.api.sample_files import MODEL
from tests.service.fetching.stub import Answer, Request, answering

MODEL_SHA256 = hashlib.sha256(MODEL).hexdigest()
HALF = len(MODEL) // 2


class Fetching:
    """A download into a folder, with the waits that it asked for instead of waiting."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "fetched"
        self.pauses: list[float] = []

    def __call__(
        self, url: str, hosts: Sequence[str] = ("127.0.0.1",), *, max_bytes: int = 10**6, idle_s: float = 5.0, **more: Any
    ) -> Fetched:
        token, sha256 = more.pop("token", None), more.pop("sha256", None)

        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        async def run() -> Fetched:
            with Receiver(Wanted("model_ref", "the file", max_bytes, sha256), self.path) as receiver:
                async with guarded_client(hosts, idle_s=idle_s, **more) as client:
                    await download(client, HttpSource(httpx.URL(url), token), receiver, pause)
                return receiver.finish()

        return asyncio.run(run())

    def fails(self, error: type[ClientError], url: str, hosts: Sequence[str] = ("127.0.0.1",), **more: Any) -> ClientError:
        with pytest.raises(error) as caught:
            self(url, hosts, **more)
        assert caught.value.param == "model_ref"
        assert caught.value.suggestion
        return caught.value


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path)


def iter_forever() -> Iterator[bytes]:
    yield b"\x08\x08\x3a\xff\xff\xff\xff\x0f"  # a model's beginning, whose graph has 4 GiB
    while True:
        yield bytes(65536)


def always(status: int, body: bytes | Callable[[], Iterator[bytes]] = b"", **headers: str) -> Callable[[Request], Answer]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request: (status, named, body if isinstance(body, bytes) else body())


def test_a_file_comes_whole_and_uncompressed(fetching: Fetching) -> None:
    with answering(always(200, MODEL)) as stub:
        assert fetching(f"{stub.url}/a/model.onnx?x=1") == Fetched(len(MODEL), MODEL_SHA256, ".onnx")
    assert fetching.path.read_bytes() == MODEL
    assert [(request.path, request.headers["accept-encoding"]) for request in stub.requests] == [("/a/model.onnx?x=1", "identity")]


def test_over_tls_also_through_a_redirect(fetching: Fetching, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    def answer(request: Request) -> Answer:
        return (200, {}, MODEL) if request.path == "/there" else (302, {"location": "/there"}, b"")

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    with answering(answer, server_tls) as stub:
        got = fetching(f"https://model.test:{stub.port}/here", ["model.test"], tls=client_tls, resolve=resolve)
        assert got.sha256 == MODEL_SHA256
        error = fetching.fails(ReferenceUnreachable, f"https://model.test:{stub.port}/here", ["model.test"], resolve=resolve)
        assert "certificate" in error.detail


@pytest.mark.parametrize("sha256", [MODEL_SHA256, "0" * 64])
def test_the_digest_is_the_one_that_was_asked_for(fetching: Fetching, sha256: str) -> None:
    with answering(always(200, MODEL)) as stub:
        if sha256 == MODEL_SHA256:
            assert fetching(stub.url, sha256=sha256).sha256 == sha256
        else:
            error = fetching.fails(DigestMismatch, stub.url, sha256=sha256)
            assert MODEL_SHA256 in error.detail


PRIVATE = (
    "http://127.0.0.1:1/", "https://127.0.0.1:1/", "https://169.254.169.254/latest/meta-data/", "http://169.254.169.254/", "https://[::1]/",
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/",
    "https://017700000001/", "https://0177.0.0.1/", "https://127.1/", "https://localhost/", "https://[fe80::1%25lo]/", "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/", "https://10.0.0.1/", "https://0/", "https://[::]/", "ftp://example.org/", "file:///etc/passwd", "gopher://x/",
    "https://user:password@example.org/", "http://example.org/", "https://", "https://example.org:0/", "data:,x",
)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "target"), [*((302, target) for target in PRIVATE), *((status, PRIVATE[2]) for status in (301, 303, 307, 308))]
)
def test_no_redirect_leads_to_a_private_address(fetching: Fetching, status: int, target: str) -> None:
    with answering(always(status, location=target)) as stub:
        fetching.fails(ReferenceRefused, stub.url, [f"127.0.0.1:{stub.port}"])
    assert (len(stub.requests), stub.connections, fetching.pauses) == (1, 1, [])


def test_a_redirect_to_nonsense_leads_nowhere(fetching: Fetching) -> None:
    for target in ("//[", "https://0177.0.0.1/", "https://[::1/", "https://a b/", "https://x:y/"):
        with answering(always(302, location=target)) as stub:
            fetching.fails(ReferenceRefused, stub.url)


def test_a_name_that_a_redirect_names_is_resolved_and_looked_at(fetching: Fetching) -> None:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host == "127.0.0.1" else ["10.20.30.40"]

    with answering(always(302, location="https://innocent.example/")) as stub:
        error = fetching.fails(ReferenceRefused, stub.url, resolve=resolve)
    assert not any(text in error.detail for text in ("10.20", "innocent"))


def test_a_loop_of_redirects_ends(fetching: Fetching) -> None:
    with answering(always(302, location="/again")) as stub:
        error = fetching.fails(ReferenceRefused, stub.url)
    assert (len(stub.requests), "more than 5 times" in error.detail) == (6, True)


def test_tls_is_not_left(fetching: Fetching, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with answering(always(200, MODEL)) as plain, answering(always(302, location=f"{plain.url}/"), server_tls) as stub:
        error = fetching.fails(ReferenceRefused, f"https://127.0.0.1:{stub.port}/", tls=client_tls)
    assert ("from https:" in error.detail, plain.connections) == (True, 0)


def test_a_token_and_cookies_are_for_their_own_origin_alone(fetching: Fetching) -> None:
    with answering(always(200, MODEL)) as other:

        def answer(request: Request) -> Answer:
            target = f"http://127.0.0.1:{other.port}/" if request.path == "/next" else "/next"
            return 302, {"location": target, "set-cookie": "a=b; Path=/"}, b""

        with answering(answer) as stub:
            fetching(stub.url, token=SecretStr("hf_secret"))
    assert [request.headers["authorization"] for request in stub.requests] == ["Bearer hf_secret"] * 2
    assert [(request.headers["authorization"], request.headers["cookie"]) for request in other.requests] == [(None, None)]
    assert [request.headers["cookie"] for request in stub.requests] == [None, None]


def test_what_says_that_it_is_too_large_is_not_received(fetching: Fetching) -> None:
    with answering(always(200, iter_forever, content_length=str(10**12))) as stub:
        error = fetching.fails(ReferenceTooLarge, stub.url, max_bytes=1000)
    assert "BAYESPRESS_MAX_MODEL_BYTES" in str(error.suggestion)
    assert fetching.path.stat().st_size == 0


@pytest.mark.parametrize("headers", [{}, {"content_length": "1000000000000"}, {"content_length": "-5"}], ids=["none", "huge", "negative"])
def test_a_body_without_an_end_ends_at_the_cap(fetching: Fetching, headers: dict[str, str]) -> None:
    with answering(always(200, iter_forever, **headers)) as stub, pytest.raises((ReferenceTooLarge, ReferenceUnreachable)):
        fetching(stub.url, max_bytes=300_000)
    assert fetching.path.stat().st_size <= 300_000


def test_more_than_was_declared_is_cut_and_less_is_a_broken_connection(fetching: Fetching) -> None:
    with answering(always(200, MODEL + bytes(500), content_length=str(len(MODEL)))) as stub:
        assert fetching(stub.url).sha256 == MODEL_SHA256
    with answering(always(200, MODEL[:HALF], content_length=str(len(MODEL)))) as stub:
        error = fetching.fails(ReferenceUnreachable, stub.url)
    assert isinstance(error, ReferenceUnreachable)
    assert (error.transient, len(stub.requests), fetching.pauses) == (True, 3, [1.0, 2.0])


@pytest.mark.parametrize("encoding", ["gzip", "br", "x-unknown", "gzip, identity"])
def test_a_compressed_answer_is_refused_and_never_expanded(fetching: Fetching, encoding: str) -> None:
    bomb = gzip.compress(bytes(10**6))
    with answering(always(200, bomb, content_encoding=encoding)) as stub:
        error = fetching.fails(ReferenceUnreachable, stub.url)
    assert ("compressed" in error.detail, len(stub.requests)) == (True, 1)


def test_what_is_no_model_is_refused_by_its_first_bytes(fetching: Fetching) -> None:
    def body() -> Iterator[bytes]:
        yield b"<!doctype html>" + b" " * 600
        while True:
            yield bytes(65536)

    with answering(always(200, body)) as stub:
        error = fetching.fails(InvalidModel, stub.url)
    assert "HTML" in error.detail


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 304, 204, 206, 300, 501])
def test_a_final_status_is_not_asked_twice(fetching: Fetching, status: int) -> None:
    with answering(always(status)) as stub:
        error = fetching.fails(ReferenceUnreachable, stub.url)
    assert isinstance(error, ReferenceUnreachable)
    assert (error.transient, len(stub.requests), str(status) in error.detail) == (False, 1, True)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(fetching: Fetching, status: int) -> None:
    answers = iter([(status, {}, b""), (200, {}, MODEL)])
    with answering(lambda _request: next(answers)) as stub:
        assert fetching(stub.url).sha256 == MODEL_SHA256
    assert (len(stub.requests), fetching.pauses) == (2, [1.0])
    with answering(always(status)) as stub:
        error = fetching.fails(ReferenceUnreachable, stub.url)
    assert isinstance(error, ReferenceUnreachable)
    assert (error.transient, len(stub.requests)) == (True, 3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7.0), ("0", 0.0), ("99999999999999999999", MAX_WAIT_S), ("Fri, 31 Dec 2999 23:59:59 GMT", MAX_WAIT_S),
     ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("Fri, 31 Dec 1999 23:59:59 -0000", 0.0), ("soon", 1.0),
     ("Fri, 31 Dec 1999 23:59:59 +999999999999999999", 1.0), ("-3", 1.0), ("", 1.0)],
)  # fmt: skip
def test_a_server_is_waited_for_as_it_asks_but_not_for_long(fetching: Fetching, value: str, expected: float) -> None:
    answers = iter([(503, {"Retry-After": value}, b""), (200, {}, MODEL)])
    with answering(lambda _request: next(answers)) as stub:
        fetching(stub.url)
    assert fetching.pauses == [expected]


def breaking(*, etags: Sequence[str], honours_range: bool = True) -> Callable[[Request], Answer]:
    """Breaks off in the middle, once for each of `etags` but the last, which names the version that comes whole."""
    remaining = list(etags)

    def answer(request: Request) -> Answer:
        etag = remaining.pop(0)
        named = {"ETag": etag} if etag else {}
        asked, same = request.headers["range"], request.headers["if-range"] in {None, etag}
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and same and honours_range else 0
        body = MODEL[start:]
        if start:
            named |= {"Content-Range": f"bytes {start}-{len(MODEL) - 1}/{len(MODEL)}"}
        sent = body if not remaining else body[: len(body) // 2]
        return 206 if start else 200, named | {"Content-Length": str(len(body))}, sent

    return answer


def test_a_broken_download_goes_on_where_it_broke(fetching: Fetching) -> None:
    with answering(breaking(etags=['"v1"', '"v1"', '"v1"'])) as stub:
        assert fetching(stub.url).sha256 == MODEL_SHA256
    quarter = HALF + (len(MODEL) - HALF) // 2
    assert [request.headers["range"] for request in stub.requests] == [None, f"bytes={HALF}-", f"bytes={quarter}-"]
    assert [request.headers["if-range"] for request in stub.requests] == [None, '"v1"', '"v1"']


@pytest.mark.parametrize("etags", [["", ""], ['W/"v1"', 'W/"v1"'], ['"v1"', '"v2"']], ids=["none", "weak", "changed"])
def test_where_the_version_is_not_known_to_be_the_same_it_begins_anew(fetching: Fetching, etags: list[str]) -> None:
    with answering(breaking(etags=etags)) as stub:
        assert fetching(stub.url) == Fetched(len(MODEL), MODEL_SHA256, ".onnx")
    assert fetching.path.read_bytes() == MODEL
    assert len(stub.requests) == 2


def test_a_server_without_ranges_is_read_from_the_start(fetching: Fetching) -> None:
    with answering(breaking(etags=['"v1"', '"v1"'], honours_range=False)) as stub:
        assert fetching(stub.url).sha256 == MODEL_SHA256
    assert fetching.path.read_bytes() == MODEL
    assert len(stub.requests) == 2


@pytest.mark.parametrize("wrong", ["bytes 0-9/10", "bytes x", "", "bytes */10"])
def test_a_wrong_range_is_not_glued_on(fetching: Fetching, wrong: str) -> None:
    first = (200, {"ETag": '"v1"', "Content-Length": str(len(MODEL))}, MODEL[:HALF])
    answers = iter([first, (206, {"ETag": '"v1"', "Content-Range": wrong}, MODEL[HALF:]), (200, {}, MODEL)])
    with answering(lambda _request: next(answers)) as stub:
        assert fetching(stub.url).sha256 == MODEL_SHA256
    assert [request.headers["range"] for request in stub.requests] == [None, f"bytes={HALF}-", None]


def test_a_server_that_says_nothing_more_is_left(fetching: Fetching) -> None:
    def body() -> Iterator[bytes]:
        yield MODEL[:HALF]
        time.sleep(0.3)  # the stub's, which hangs for longer than it is waited for

    with answering(always(200, body, content_length=str(len(MODEL)))) as stub:
        error = fetching.fails(ReferenceUnreachable, stub.url, idle_s=0.05)
    assert ("in time" in error.detail, len(stub.requests)) == (True, 3)


def test_a_cut_connection_and_a_closed_port(fetching: Fetching) -> None:
    def cut(_request: Request) -> Answer:
        raise ConnectionError

    with answering(cut) as stub:
        assert "broke" in fetching.fails(ReferenceUnreachable, stub.url).detail
    assert "connected to" in fetching.fails(ReferenceUnreachable, "http://127.0.0.1:1/").detail
