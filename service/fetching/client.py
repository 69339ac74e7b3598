"""`guarded_client`: an httpx client that connects only to where the address guard lets it. Built on public interfaces alone."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import httpcore
import httpx

from service.fetching.address import AddressGuard, Resolver, resolve_by_system

CONNECT_S = 10.0
IDLE_S = 30.0


def guarded_client(
    private_hosts: Collection[str],
    *,
    resolve: Resolver = resolve_by_system,
    tls: ssl.SSLContext | None = None,
    connect_s: float = CONNECT_S,
    idle_s: float = IDLE_S,
) -> httpx.AsyncClient:
    """A client for URLs that others have named; `private_hosts` are those of the setting `reference_hosts` or the like.

    It follows no redirects, goes by no proxy and reads no .netrc. Certificates are checked against those that the system trusts.

    Raises, beside httpx.HTTPError: AddressRefused, for every request to a host that may not be asked.
    """
    transport = GuardedTransport(AddressGuard(private_hosts, resolve), tls or ssl.create_default_context())
    timeout = httpx.Timeout(idle_s, connect=connect_s)
    return httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to addresses that the guard has looked at, one after the other; TLS still asks for the name."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(await self._guard.addresses(host, port), port, local_address, socket_options)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} does not answer") from None
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address") from error

    async def _connect(
        self, addresses: Iterable[str], port: int, local_address: str | None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None
    ) -> httpcore.AsyncNetworkStream:
        failure = httpcore.ConnectError("no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, None, local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
        raise failure


class GuardedTransport(httpx.AsyncBaseTransport):
    """What httpx.AsyncHTTPTransport does, which takes no network backend."""

    def __init__(self, guard: AddressGuard, tls: ssl.SSLContext) -> None:
        self._guard = guard
        self._pool = httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=GuardedBackend(guard))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        self._guard.check_url(url)
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _errors_of_httpx():
            answer = await self._pool.handle_async_request(asked)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._pool.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx():
            async for chunk in self._answer.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        with _errors_of_httpx():
            await self._answer.aclose()


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """The two libraries have the same names for the same errors."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error
