"""ASGI middleware around all routes: who may address the service, and one log line per request."""

import asyncio
import logging
import re
import time
from collections.abc import Collection
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import ApiError, HostNotAllowed, OriginNotAllowed, internal_error, to_response
from service.api.request_id import HEADER, choose_request_id, request_id
from service.keys.leaks import LeakFinder

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Probes and scrapers come by address and without a key, and learn of no job from these.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
# How long a client that was refused may go on sending.
LINGER_S = 2.0
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
logger = logging.getLogger("service.requests")


class GuardAddress:
    """Answers requests under unknown names (DNS rebinding) and writes from pages of other sites (forged forms) with a problem.

    A browser sends Host and Origin itself, and a page cannot change them; other clients need no Origin.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            error = self._judge(scope["method"], Headers(scope=scope))
            if error is not None:
                await to_response(error.to_problem())(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _judge(self, method: str, headers: Headers) -> ApiError | None:
        hosts = headers.getlist("host")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None or match[1].lower() not in self._allowed_hosts:
            suggestion = "Use http://127.0.0.1, or add the name to BAYESPRESS_ALLOWED_HOSTS."
            return HostNotAllowed("The Host header names none of the allowed hosts.", param="Host", suggestion=suggestion)
        origins = headers.getlist("origin")
        if method not in SAFE_METHODS and any(origin.partition("://")[2].lower() != hosts[0].lower() for origin in origins):
            return OriginNotAllowed(
                "The Origin header names another site.", param="Origin", suggestion="Call the service from its own address."
            )
        return None


class EndUnreadBodies:
    """Sends a response that comes before the request's body has ended at once, and closes the connection a little later.

    The server by itself would read on for as long as the client sends. Closing at once would take the answer away from clients that
    only look for one when they have sent everything.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

        async def receive_noting_end() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def send_and_linger(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if message["type"] == "http.response.body" and unread and not message.get("more_body"):
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while unread:
                            await receive_noting_end()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, receive_noting_end, send_and_linger)


class LogRequests:
    """One line per request when it is over: method, path, status, milliseconds, id; reads that went well are left to the level DEBUG.

    A failure inside becomes a problem, and a traceback in the log; the server would close the connection under a client which reuses it.
    An address with a key in it is not logged, and no query is.
    """

    def __init__(self, app: ASGIApp, leaks: LeakFinder) -> None:
        self._app = app
        self._leaks = leaks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0
        own_id = choose_request_id(Headers(scope=scope), self._leaks)
        request_id.set(own_id)

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (HEADER.lower().encode(), own_id.encode())]}
            await send(message)

        line = self._describe(scope)
        try:
            await self._app(scope, receive, send_noting_status)
        except Exception:
            logger.exception("%s failed %s", line, own_id)
            if status:
                raise
            await to_response(internal_error(scope["method"]))(scope, receive, send_noting_status)
        finally:
            # A client that polls would drown everything else.
            level = logging.DEBUG if scope["method"] in SAFE_METHODS and status < 400 else logging.INFO
            logger.log(level, "%s %d %.0f ms %s", line, status, 1000 * (time.monotonic() - started), own_id)

    def _describe(self, scope: Scope) -> str:
        # The raw path is still percent-encoded, so it cannot forge a line of the log.
        line = f"{scope['method']} {scope['raw_path'].decode('latin-1')}"
        return "(a key in the address)" if self._leaks.is_in_address(line) else line[:200]
