"""Who gets past the door: every route with and without keys, wrong, old and small ones, and no trace of a secret anywhere."""

import ast
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from service import keys
from service.api import authentication
from service.api.guard import OPEN_PATHS
from service.app import create_app
from service.keys.key import Scope, draw_key
from service.keys.repository import KeyRepository
from tests.service.api.live import LiveService, service_settings, serving
from tests.service.api.sample_files import MODEL
from tests.service.api.test_error_shape import of_nothing
from tests.service.api.test_problems import assert_problem

ADMIN_KEY = "an-admin-key+of/more=than-thirty-two"
LATER, EARLIER = (datetime.now(UTC) + timedelta(days=days) for days in (1, -1))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    settings = service_settings(tmp_path_factory.mktemp("guarded"))
    with serving(settings.model_copy(update={"require_keys": True, "admin_key": SecretStr(ADMIN_KEY)})) as live:
        yield live


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def routes_of(router: Any) -> Iterator[tuple[str, str]]:
    """Method and path of every route, those that are not described included."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router)
        else:
            yield from ((method, of_nothing(route.path)) for method in route.methods)


@pytest.fixture(scope="module")
def routes(guarded: LiveService) -> list[tuple[str, str]]:
    found = sorted(set(routes_of(create_app(guarded.settings, guarded.jobs, guarded.store))))
    assert {("GET", "/openapi.json"), ("POST", "/compress"), ("HEAD", "/v1/jobs/none/report"), ("DELETE", "/v1/jobs/none")} <= set(found)
    assert len(found) > 20
    return found


def test_no_route_answers_without_a_key_but_those_of_probes(guarded: LiveService, routes: list[tuple[str, str]]) -> None:
    open_ones = set()
    for method, path in [*routes, ("GET", "/no/such/path"), ("PATCH", "/v1/jobs"), ("OPTIONS", "/v1/jobs"), ("GET", "/metrics")]:
        response = guarded.client.request(method, path)
        if path in OPEN_PATHS:
            open_ones.add(path)
            assert response.status_code in {200, 404}
            continue
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer"), path
        wrong = guarded.client.request(method, path, headers=bearer(draw_key().reveal()))
        assert wrong.status_code == 401
        if method != "HEAD":
            assert_problem(response, 401, "missing_key")
            assert_problem(wrong, 401, "invalid_key")
    assert open_ones == {"/livez", "/readyz", "/metrics"}


def test_probes_need_neither_key_nor_known_host(guarded: LiveService) -> None:
    for path in ("/livez", "/readyz"):
        assert guarded.client.get(path, headers={"Host": "10.1.2.3"}).status_code == 200
    assert_problem(guarded.client.get("/v1/jobs", headers={"Host": "10.1.2.3", **bearer(ADMIN_KEY)}), 421, "host_not_allowed")


def test_each_scope_opens_its_routes(guarded: LiveService, routes: list[tuple[str, str]]) -> None:
    made = {scope: guarded.make_key("alice", scope) for scope in Scope}
    for method, path in [route for route in routes if route[1] not in OPEN_PATHS]:
        for scope, key in made.items():
            response = guarded.client.request(method, path, headers=bearer(key))
            if scope is Scope.READ and method not in {"GET", "HEAD"}:
                assert_problem(response, 403, "scope_too_small")
                assert response.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="submit"'
            else:
                assert response.status_code not in {401, 403}, (method, path, scope)


@pytest.mark.parametrize("key", [ADMIN_KEY, None])
def test_a_key_is_taken_from_either_header_and_the_same_one_from_both(guarded: LiveService, key: str | None) -> None:
    key = key or guarded.make_key("alice", Scope.READ)
    ways: list[list[tuple[str, str]]] = [
        [("Authorization", f"Bearer {key}")],
        [("authorization", f"bearer   {key}")],
        [("X-API-Key", key)],
        [("X-API-Key", key), ("Authorization", f"Bearer {key}")],
    ]
    for headers in ways:
        assert guarded.client.get("/v1/jobs", headers=headers).status_code == 200, headers


def test_what_is_no_key_or_no_longer_is_refused(guarded: LiveService) -> None:
    good, other = guarded.make_key("alice"), guarded.make_key("alice")
    expired, revoked = guarded.make_key("alice", expires_at=EARLIER), guarded.make_key("alice", revoked_at=EARLIER)
    assert guarded.client.get("/v1/jobs", headers=bearer(guarded.make_key("alice", expires_at=LATER))).status_code == 200
    wrong: list[list[tuple[str, str]]] = [
        [("Authorization", f"Bearer {text}")]
        for text in (
            good[:-1],
            f"{good}0",
            good[:-1] + ("0" if good[-1] != "0" else "1"),
            good[:20] + other[20:],
            good.upper(),
            "x",
            ADMIN_KEY[:-1],
        )
    ] + [
        [("Authorization", text)]
        for text in ("", "Bearer", f"Basic {good}", good, f"Bearer {good} {good}", f"Bearer {good}, Bearer {good}")
    ]
    wrong += [[("X-API-Key", text)] for text in ("", "x", f"Bearer {good}")]
    wrong += [
        [("Authorization", f"Bearer {good}"), ("X-API-Key", other)],
        [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {other}")],
        [("X-API-Key", good), ("X-API-Key", "x")],
        [("Authorization", f"Basic {good}"), ("X-API-Key", good)],
        [("Authorization", f"Bearer {expired}")],
        [("Authorization", f"Bearer {revoked}")],
    ]
    for headers in wrong:
        problem = assert_problem(guarded.client.get("/v1/jobs", headers=headers), 401, "invalid_key")
        assert not any(key[20:] in problem.model_dump_json() for key in (good, other, expired, revoked))
    for key, state in ((expired, "expired"), (revoked, "revoked")):
        assert state in guarded.client.get("/v1/jobs", headers=bearer(key)).json()["detail"]
        # Only whoever has the secret learns what has become of the key.
        assert guarded.client.get("/v1/jobs", headers=bearer(key[:20] + other[20:])).json()["detail"] == "There is no such key."


def test_a_revoked_key_is_worthless_at_once(guarded: LiveService) -> None:
    key = guarded.make_key("alice")
    assert guarded.client.get("/v1/jobs", headers=bearer(key)).status_code == 200
    KeyRepository(guarded.jobs.engine).revoke(key[3:19])
    assert_problem(guarded.client.get("/v1/jobs", headers=bearer(key)), 401, "invalid_key")


def test_on_loopback_none_is_needed_but_what_is_sent_is_checked(service: LiveService) -> None:
    assert service.client.get("/v1/jobs").status_code == 200
    assert_problem(service.client.get("/v1/jobs", headers=bearer(draw_key().reveal())), 401, "invalid_key")
    assert_problem(service.client.get("/v1/jobs", headers={"X-API-Key": ""}), 401, "invalid_key")
    read = bearer(service.make_key("alice", Scope.READ))
    assert service.client.get("/v1/jobs", headers=read).json()["data"] == []
    assert_problem(service.client.post("/compress", headers=read, files={"model": ("m", MODEL)}), 403, "scope_too_small")


def test_nothing_is_received_before_the_key_is_checked(guarded: LiveService) -> None:
    with httpx.Client(base_url=guarded.url, timeout=5) as client:
        response = client.post("/compress", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert_problem(response, 401, "missing_key")
    assert guarded.left_behind() == []


def endless() -> Iterator[bytes]:
    for _ in range(2000):
        yield bytes(1000)


@pytest.mark.parametrize("own_key", [False, True])
def test_a_key_in_a_wrong_place_is_refused_and_leaves_no_trace(
    guarded: LiveService, caplog: pytest.LogCaptureFixture, own_key: bool
) -> None:
    caplog.set_level("DEBUG")
    key = guarded.make_key("alice") if own_key else ADMIN_KEY
    secret = key[20:] if own_key else key
    good = bearer(guarded.make_key("bob"))
    answers = [
        guarded.client.request(method, path, headers=headers, params=params)
        for method, path, params in [
            ("GET", "/v1/jobs", {"key": key}),
            ("GET", "/v1/jobs", {key: ""}),
            ("GET", f"/v1/jobs/{quote(key, safe='')}", None),
            ("GET", f"/v1/jobs/{key}", None),
            ("GET", f"/v1/jobs?key={key}", None),
            ("POST", "/v1/jobs/none/cancel", {"after": f"x{key[:-1]}" if own_key else key}),
            ("GET", "/no/such/path", {"token": key}),
        ]
        for headers in ({}, good)
    ]
    for response in answers:
        assert_problem(response, 401, "invalid_key")
    # Where it is not looked for, it is not repeated either.
    for headers in ({"X-Request-ID": key}, {"X-Request-ID": f"a:{key}"}, {"Host": "evil.example"}, {"Origin": f"https://{key}"}):
        answers.append(guarded.client.post("/v1/jobs", headers={**good, **headers}, params={"key": key} if "Host" in headers else None))
    answers.append(guarded.client.get("/v1/jobs", headers=bearer(key)))
    answers.append(guarded.client.get("/livez", params={"key": key}))
    assert {response.status_code for response in answers} >= {200, 401, 421}
    assert [response for response in answers if secret in response.text + str(response.headers)] == []
    assert caplog.records
    # The client and uvicorn have logs of their own, of which `serve` shows nothing: tests/acceptance/test_keys.py.
    lines = [f"{record.getMessage()} {record.exc_text}" for record in caplog.records if record.name.startswith("service")]
    assert any("(a key in the address)" in line for line in lines)
    assert [line for line in lines if secret in line or quote(secret, safe="") in line] == []


def test_no_query_is_logged(guarded: LiveService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "service")
    guarded.client.get("/v1/jobs", params={"after": "private"}, headers=bearer(ADMIN_KEY))
    guarded.client.get("/v1/jobs", params={"limit": "private"}, headers=bearer(ADMIN_KEY))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("service")]
    assert [line for line in lines if line.startswith("GET /v1/jobs ")]
    assert [line for line in lines if "private" in line] == []


def test_a_failure_while_the_key_is_checked_tells_nothing_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(service_settings(tmp_path / "home")) as live:
        key = live.make_key("alice")
        with live.jobs.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE api_keys")
        assert_problem(live.client.get("/v1/jobs", headers=bearer(key)), 500, "internal_error")
    assert [record for record in caplog.records if record.exc_info]
    assert key[20:] not in caplog.text


def test_secrets_are_compared_in_constant_time_only() -> None:
    """Read off the code: no measurement over a socket could tell."""
    files = [Path(authentication.__file__), *Path(keys.__path__[0]).glob("*.py")]
    compared, equal = set(), []
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        names = {name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "") for name in ast.walk(node)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "compare_digest":
            compared |= names
        if isinstance(node, ast.Compare) and names & {"secret", "digest", "secret_sha256", "reveal", "get_secret_value", "_digest"}:
            equal.append(ast.unparse(node))
    assert {"secret_sha256", "_NOBODY", "_admin_digest"} <= compared
    assert equal == []


# What adds to what an owner has.
ADDING = {"compress", "create_job", "retry_job", "upload_model", "upload_dataset"}


def test_every_operation_says_what_it_needs(guarded: LiveService) -> None:
    description = guarded.client.get("/openapi.json", headers=bearer(ADMIN_KEY)).json()
    schemes = description["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["apiKey"]["in"], schemes["apiKey"]["name"]) == ("bearer", "header", "X-API-Key")
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            needed = "read" if method == "get" else "submit"
            assert operation["security"] == ([] if path in OPEN_PATHS else [{"bearer": [needed]}, {"apiKey": [needed]}])
            assert ("401" in operation["responses"]) == (path not in OPEN_PATHS)
            assert ("403" in operation["responses"]) == (method != "get")
            assert ("429" in operation["responses"]) == (operation["operationId"] in ADDING)


def test_the_admin_key_is_in_no_file_of_the_service(guarded: LiveService) -> None:
    guarded.client.get("/v1/jobs", headers=bearer(ADMIN_KEY))
    files = [Path(folder, name) for folder, _, names in os.walk(guarded.settings.home) for name in names]
    assert files
    assert [path for path in files if ADMIN_KEY.encode() in path.read_bytes()] == []
