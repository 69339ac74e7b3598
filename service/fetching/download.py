"""A file over HTTP: streamed, capped, taken up again where the connection broke, every redirect looked at as the first URL was."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx

from compressor import __version__
from service.fetching.address import AddressRefused
from service.fetching.errors import ReferenceRefused, ReferenceUnreachable
from service.fetching.receiving import Receiver, Wanted
from service.fetching.retry_after import parse_retry_after
from service.fetching.sources import HttpSource

MAX_REDIRECTS = 5
MAX_TRIES = 3
BACKOFF_S = 1.0
# Longer than this nobody is waited for, whatever Retry-After says.
MAX_WAIT_S = 30.0
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# A compressed answer would have to be expanded, to any size.
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"bayespress/{__version__}"}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")

Pause = Callable[[float], Awaitable[object]]


class _TryAgain(Exception):
    """This try has failed, and the next one may not; `wait_s` is what the server asks for."""

    def __init__(self, detail: str, wait_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.wait_s = wait_s


async def download(client: httpx.AsyncClient, source: HttpSource, receiver: Receiver, pause: Pause = asyncio.sleep) -> None:
    """The body of `source` into `receiver`. `client` is a guarded one.

    Raises: ReferenceRefused, ReferenceUnreachable, and what the receiver raises.
    """
    transfer = _Transfer(client, source, receiver)
    for number in range(1, MAX_TRIES + 1):
        try:
            await transfer.run()
            return
        except _TryAgain as failure:
            if number == MAX_TRIES:
                raise unreachable(receiver.wanted, failure.detail, transient=True) from failure
            await pause(min(BACKOFF_S * 2 ** (number - 1) if failure.wait_s is None else failure.wait_s, MAX_WAIT_S))


class _Transfer:
    """One file, in as many tries as it takes. `_etag` names the version that the receiver has a part of; only a strong one can."""

    def __init__(self, client: httpx.AsyncClient, source: HttpSource, receiver: Receiver) -> None:
        self._client = client
        self._source = source
        self._receiver = receiver
        self._etag: str | None = None
        self._redirected = False

    async def run(self) -> None:
        try:
            async with self._open() as answer:
                self._begin(answer)
                async for chunk in answer.aiter_raw():
                    self._receiver.take(chunk)
        except AddressRefused as error:
            # Where a host that was named sends on to is its own business.
            detail = "It redirects to where the service does not go." if self._redirected else str(error)
            raise refused(self._receiver.wanted, detail) from error
        except httpx.InvalidURL as error:
            raise self._refuse_location() from error
        except httpx.TransportError as error:
            if _is_about_location(error):
                raise self._refuse_location() from error
            if _is_about_certificates(error):
                raise unreachable(self._receiver.wanted, "Its certificate is not trusted here.", transient=False) from error
            raise _TryAgain(_describe(error)) from error

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[httpx.Response]:
        """The answer behind all redirects."""
        url, self._redirected = self._source.url, False
        for _ in range(MAX_REDIRECTS + 1):
            request = self._client.build_request("GET", url, headers=HEADERS | self._resumption() | self._source.headers_for(url))
            answer = await self._client.send(request, stream=True)
            try:
                if not answer.has_redirect_location:
                    yield answer
                    return
                url, self._redirected = self._follow(url, answer.headers["location"]), True
            finally:
                await answer.aclose()
        raise refused(self._receiver.wanted, f"It redirects more than {MAX_REDIRECTS} times.")

    def _follow(self, url: httpx.URL, location: str) -> httpx.URL:
        try:
            target = url.join(location)
        except (httpx.InvalidURL, ValueError):
            raise self._refuse_location() from None
        if url.scheme == "https" and target.scheme != "https":
            raise refused(self._receiver.wanted, "It redirects from https: to something else.")
        return target

    def _refuse_location(self) -> ReferenceRefused:
        return refused(self._receiver.wanted, "It redirects to what is no URL.")

    def _resumption(self) -> dict[str, str]:
        if self._etag is None or not self._receiver.num_bytes:
            return {}
        return {"Range": f"bytes={self._receiver.num_bytes}-", "If-Range": self._etag}

    def _begin(self, answer: httpx.Response) -> None:
        """Looks at the status and the headers; what came before is kept where the answer goes on from there."""
        resumes = answer.status_code == 206 and "Range" in answer.request.headers
        if not resumes and answer.status_code != 200:
            raise self._failure(answer)
        if answer.headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
            raise unreachable(self._receiver.wanted, "It came compressed, which was not asked for.", transient=False)
        if resumes:
            self._check_resumed(answer)
        else:
            self._receiver.restart()
        etag = answer.headers.get("etag", "")
        self._etag = etag if etag.startswith('"') else None
        declared = answer.headers.get("content-length", "")
        if declared.isdecimal():
            self._receiver.check_size(self._receiver.num_bytes + int(declared))

    def _check_resumed(self, answer: httpx.Response) -> None:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if match is None or int(match[1]) != self._receiver.num_bytes or answer.headers.get("etag", self._etag) != self._etag:
            self._etag = None
            raise _TryAgain("It did not go on from where the connection broke.", 0.0)

    def _failure(self, answer: httpx.Response) -> Exception:
        detail = f"It was answered with status {answer.status_code}."
        if answer.status_code == 416 and "Range" in answer.request.headers:
            self._etag = None
            return _TryAgain(detail, 0.0)
        if answer.status_code in TRANSIENT_STATUSES:
            return _TryAgain(detail, parse_retry_after(answer.headers.get("retry-after"), datetime.now(UTC)))
        return unreachable(self._receiver.wanted, detail, transient=False)


def refused(wanted: Wanted, detail: str) -> ReferenceRefused:
    suggestion = "Name a file on a public host over https:, or send the file; BAYESPRESS_REFERENCE_HOSTS names hosts that may be private."
    return ReferenceRefused(f"{wanted.shown} is not fetched. {detail}", param=wanted.param, suggestion=suggestion)


def unreachable(wanted: Wanted, detail: str, *, transient: bool) -> ReferenceUnreachable:
    suggestion = "Check that the file is there and may be read, then retry the job; or send the file."
    detail = f"{wanted.shown} could not be fetched. {detail}"
    return ReferenceUnreachable(detail, param=wanted.param, suggestion=suggestion, transient=transient)


def _describe(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "The host did not answer in time."
    return "The host could not be connected to." if isinstance(error, httpx.ConnectError) else "The connection broke."


def _is_about_location(error: httpx.TransportError) -> bool:
    """httpx reads the header Location too, with this or InvalidURL; the errors of the connection have others below them."""
    return isinstance(error, httpx.RemoteProtocolError) and error.__cause__ is None


def _is_about_certificates(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
