"""ASGI middleware that finds out who asks, before any route or the body: `Authorization: Bearer KEY` or `X-API-Key: KEY`.

It stands before every route, so none can forget it: whoever reads (GET, HEAD) needs the scope read, and whoever does anything else submit.
"""

import hashlib
import hmac
import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from service.api.caller import Caller
from service.api.guard import OPEN_PATHS
from service.api.problems import ApiError, InvalidKey, MissingKey, ScopeTooSmall, to_response
from service.jobs.clock import utc_now
from service.jobs.job import LOCAL
from service.jobs.quotas.quota import Quotas
from service.keys.key import Scope, parse_key
from service.keys.leaks import LeakFinder
from service.keys.repository import KeyRepository
from service.settings import Settings

ADMIN = "admin"
API_KEY_HEADER = "X-API-Key"
READING = frozenset({"GET", "HEAD"})
_BEARER = re.compile(r"bearer +([\x21-\x7e]+)", re.IGNORECASE)
# With whose digest that of an unknown id is compared, so that both take the same time.
_NOBODY = hashlib.sha256(b"").hexdigest()


class Authenticate:
    """Answers with a problem where there is no valid key, or its scope is too small; else the request has a `Caller` in its state."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: KeyRepository, leaks: LeakFinder) -> None:
        self._app = app
        self._keys = keys
        self._leaks = leaks
        self._required = settings.keys_required
        self._defaults = Quotas.of(settings)
        self._admin_digest = _digest(settings.admin_key.get_secret_value()) if settings.admin_key else None

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                caller = await self._find_caller(scope)
                _check_scope(caller, scope["method"])
            except ApiError as error:
                await to_response(error.to_problem(), error.headers)(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    async def _find_caller(self, scope: Connection) -> Caller:
        if any(self._leaks.is_in_address(scope[part].decode("latin-1")) for part in ("raw_path", "query_string")):
            raise _refusal("A key stands in the address, where proxies and logs see it.", "Revoke it, and send another in a header.")
        sent = _read_headers(Headers(scope=scope))
        if not sent:
            if self._required:
                suggestion = "Send Authorization: Bearer KEY; `bayespress keys create` makes one."
                headers = {"WWW-Authenticate": "Bearer"}
                raise MissingKey("The request has no key.", param="Authorization", suggestion=suggestion, headers=headers)
            return Caller(LOCAL, Scope.ADMIN, self._defaults)
        if len(sent) > 1:
            raise _refusal("The request has several keys.", "Send one.")
        return await run_in_threadpool(self._check, sent.pop())

    def _check(self, text: str) -> Caller:
        if self._admin_digest is not None and hmac.compare_digest(_digest(text), self._admin_digest):
            return Caller(ADMIN, Scope.ADMIN, self._defaults)
        key = parse_key(text)
        known = self._keys.find(key.id) if key else None
        is_right = hmac.compare_digest(key.digest if key else _digest(text), known.secret_sha256 if known else _NOBODY)
        if known is None or not is_right:
            raise _refusal("There is no such key.", "Look whether it was copied whole: bp_, an id, and the secret.")
        state = known.state(utc_now())
        if state != "valid":
            raise _refusal(f"The key {known.id} is {state}.", "Ask whoever runs the service for another.")
        return Caller(known.owner, known.scope, known.quotas.over(self._defaults))


def _read_headers(headers: Headers) -> set[str]:
    """The different keys that were sent. Raises InvalidKey where Authorization is none."""
    sent = set(headers.getlist(API_KEY_HEADER))
    for value in headers.getlist("Authorization"):
        match = _BEARER.fullmatch(value)
        if match is None:
            raise _refusal("The header is not of the form Authorization: Bearer KEY.", "Send it so, or X-API-Key: KEY.")
        sent.add(match[1])
    return sent


def _check_scope(caller: Caller, method: str) -> None:
    needed = Scope.READ if method in READING else Scope.SUBMIT
    if not caller.scope.covers(needed):
        detail = f"{method[:20]} needs the scope {needed}, and the key has {caller.scope}."
        headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'}
        raise ScopeTooSmall(detail, param="Authorization", suggestion=f"Take a key of scope {needed}.", headers=headers)


def _refusal(detail: str, suggestion: str) -> InvalidKey:
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return InvalidKey(detail, param="Authorization", suggestion=suggestion, headers=headers)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
