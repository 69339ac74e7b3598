"""Every route of the application, asked for what it has not: the same problem object each time."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Match

from service.app import create_app
from service.jobs.states import Status
from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL
from tests.service.api.test_problems import assert_problem

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture(scope="module")
def app(service: LiveService) -> Any:
    return create_app(service.settings, service.jobs, service.store)


@pytest.fixture(scope="module")
def operations(app: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of all that is described."""
    paths = app.openapi()["paths"]
    return [(method.upper(), path, operation) for path, methods in paths.items() for method, operation in methods.items()]


def is_served(app: Any, method: str, path: str) -> bool:
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


def methods_of(app: Any, path: str) -> set[str]:
    return {method for method in METHODS if is_served(app, method, path)}


def of_nothing(path: str) -> str:
    return re.sub(r"{[a-z_]+}", "none", path)


def send(service: LiveService, method: str, path: str, **options: Any) -> httpx.Response:
    return service.client.request(method, path, **options)


def test_all_that_is_served_is_described(app: Any, operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    described = {(method, path) for method, path, _ in operations}
    for path in {path for _, path in described}:
        undescribed = methods_of(app, of_nothing(path)) - {method for method, known in described if known == path}
        # HEAD is GET without the body, and needs no words of its own.
        assert undescribed <= ({"HEAD"} if ("GET", path) in described else set())


def test_what_is_not_there_is_a_404(service: LiveService, operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    for method, path, operation in operations:
        assert_problem(send(service, method, f"{of_nothing(path)}/no/such/path"), 404, "not_found")
        if "{job_id}" in path:
            assert "404" in operation["responses"]
            assert_problem(send(service, method, of_nothing(path)), 404, "job_not_found")
        if "{webhook_id}" in path and "requestBody" not in operation:
            assert "404" in operation["responses"]
            assert_problem(send(service, method, of_nothing(path)), 404, "webhook_not_found")
        if "{model_id}" in path or "{dataset_id}" in path:
            assert "404" in operation["responses"]
            assert_problem(send(service, method, of_nothing(path)), 404, "upload_not_found")


def test_another_method_is_a_405(service: LiveService, app: Any, operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    for path in sorted({path for _, path, _ in operations}):
        allowed = methods_of(app, of_nothing(path))
        for method in sorted(METHODS - allowed - {"HEAD"}):
            response = send(service, method, of_nothing(path))
            assert assert_problem(response, 405, "method_not_allowed").param == "method"
            assert set(response.headers["allow"].split(", ")) == allowed


def test_a_body_of_another_type_is_a_415(service: LiveService, operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    with_body = [(method, path) for method, path, operation in operations if "requestBody" in operation]
    assert {("POST", "/compress"), ("POST", "/v1/jobs")} <= set(with_body)
    raw = ("/v1/models", "/v1/datasets")
    for method, path in with_body:
        # A file may come as it is, without any.
        absent: list[dict[str, str]] = [] if path in raw else [{}]
        for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, *absent):
            response = send(service, method, of_nothing(path), headers=headers, content=b"a=b")
            assert_problem(response, 415, "unsupported_media_type")


def wrong_parameters(operation: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Place, name and a wrong value of each parameter that can have one."""
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        options = schema.get("anyOf", [schema])
        kinds = {"string" if option.get("items", {}).get("type") == "string" else option.get("type") for option in options}
        if parameter["in"] != "path" and not kinds & {"string", None}:
            yield parameter["in"], parameter["name"], "x"
        elif parameter["in"] == "query" and (longest := max(option.get("maxLength", 0) for option in options)):
            yield parameter["in"], parameter["name"], "x" * (longest + 1)


def test_a_wrong_parameter_is_a_422_that_names_it(service: LiveService, operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {}).id
    webhook = service.client.post("/v1/webhooks", json={"url": "https://example.org"}).json()["id"]
    tried = 0
    for method, path, operation in operations:
        for place, name, value in wrong_parameters(operation):
            options = {"params" if place == "query" else "headers": {name: value}}
            response = send(service, method, path.format(job_id=job, webhook_id=webhook, name="none"), **options)
            assert str(assert_problem(response, 422, "invalid_request").param).split(".")[0] == name  # a list names its item
            tried += 1
    assert tried >= 2


def test_all_other_refusals_have_the_same_shape(service: LiveService) -> None:
    file = f"/v1/jobs/{service.insert_finished(Status.SUCCEEDED, {'model.onnx': b'a file'}).id}/artifacts/model.onnx"
    assert_problem(service.client.get(file, headers={"Range": "bytes=9-"}), 416, "range_not_satisfiable")
    assert_problem(service.client.get(file, headers={"If-Match": '"a"'}), 412, "precondition_failed")
    # Its doc_string, of two million bytes.
    large = MODEL + b"\x32\x80\x89\x7a" + bytes(2_000_000)
    assert_problem(service.client.post("/compress", files={"model": ("m", large)}), 413, "payload_too_large")
    queued = service.insert_finished(Status.QUEUED, {}).id
    assert_problem(service.client.get(f"/v1/jobs/{queued}/report"), 409, "job_not_finished")


def test_an_id_that_is_sane_is_kept(service: LiveService) -> None:
    for sent in ("a", "4bf92f3577b34da6a3ce929d0e0e4736", "req_1", "Root=1-67891233-abcdef012345678912345678", "a" * 128):
        for path, status in (("/v1/jobs", 200), ("/v1/jobs/none", 404), ("/nothing", 404), ("/livez", 200)):
            response = service.client.get(path, headers={"X-Request-ID": sent})
            assert (response.status_code, response.headers["x-request-id"]) == (status, sent)
            if status == 404:
                assert response.json()["request_id"] == sent


@pytest.mark.parametrize("sent", ["", "a b", "a" * 129, '"', "<script>", "-a", "a\tb", "%0a", "é"])
def test_any_other_is_replaced(service: LiveService, sent: str) -> None:
    ids = {service.client.get("/v1/jobs", headers={"X-Request-ID": sent.encode()}).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("req_[0-9a-f]{32}", request_id) for request_id in ids)


def test_two_ids_are_none(service: LiveService) -> None:
    response = service.client.get("/v1/jobs", headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")])
    assert response.headers["x-request-id"].startswith("req_")


def test_the_log_has_the_id(service: LiveService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "service.requests")
    service.client.get("/v1/jobs/none", headers={"X-Request-ID": "in-the-log"})
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if re.fullmatch(r"GET /v1/jobs/none 404 \d+ ms in-the-log", line)]


def test_a_failure_inside_has_the_id_of_its_traceback(service: LiveService, caplog: pytest.LogCaptureFixture) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {"model.onnx": b"gone"}).id
    service.store.delete_prefix(f"jobs/{job}")
    response = service.client.get(f"/v1/jobs/{job}/artifacts/model.onnx", headers={"X-Request-ID": "a-failure"})
    assert assert_problem(response, 500, "internal_error").request_id == "a-failure"
    assert [record for record in caplog.records if record.exc_info and record.getMessage().endswith("failed a-failure")]


def test_a_guarded_request_has_one_too(service: LiveService) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        response = service.client.post("/compress", headers={**headers, "X-Request-ID": "guarded"})
        assert response.json()["request_id"] == response.headers["x-request-id"] == "guarded"
