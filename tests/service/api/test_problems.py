"""One error shape over every route, the guards around all of them, and the published description."""

import itertools
import re
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from compressor.errors import DatasetError, ModelError, error_classes
from service.api import problems
from service.api.problems import ApiError, RequestProblem, raised_errors
from service.jobs.states import Status
from tests.service.api.live import LiveService, service_settings, serving
from tests.service.api.sample_files import MODEL, PARQUET_FILE

ROUTES = [
    ("POST", "/compress"),
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/{job_id}"),
    ("DELETE", "/v1/jobs/{job_id}"),
    ("POST", "/v1/jobs/{job_id}/cancel"),
    ("POST", "/v1/jobs/{job_id}/pause"),
    ("POST", "/v1/jobs/{job_id}/resume"),
    ("POST", "/v1/jobs/{job_id}/retry"),
    ("GET", "/v1/jobs/{job_id}/artifacts"),
    ("GET", "/v1/jobs/{job_id}/artifacts/{name}"),
    ("GET", "/v1/jobs/{job_id}/artifacts.zip"),
    ("GET", "/v1/jobs/{job_id}/report"),
    ("GET", "/v1/jobs/{job_id}/events"),
    ("GET", "/v1/webhooks"),
    ("POST", "/v1/webhooks"),
    ("GET", "/v1/webhooks/{webhook_id}"),
    ("PATCH", "/v1/webhooks/{webhook_id}"),
    ("DELETE", "/v1/webhooks/{webhook_id}"),
    ("POST", "/v1/webhooks/{webhook_id}/rotate-secret"),
    ("POST", "/v1/webhooks/{webhook_id}/test"),
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"),
    ("GET", "/v1/models"),
    ("POST", "/v1/models"),
    ("GET", "/v1/models/{model_id}"),
    ("DELETE", "/v1/models/{model_id}"),
    ("GET", "/v1/datasets"),
    ("POST", "/v1/datasets"),
    ("GET", "/v1/datasets/{dataset_id}"),
    ("DELETE", "/v1/datasets/{dataset_id}"),
    ("GET", "/v1/config/schema"),
    ("GET", "/v1/info"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
]
GUARDED = [route for route in ROUTES if route[1] not in {"/livez", "/readyz"}]
# Of jobs.
NEEDS_NO_TABLE = {"/v1/config/schema", "/v1/info", *(path for _, path in ROUTES if path.startswith("/v1/webhooks"))}


def path_of(template: str) -> str:
    ids = {"job_id": "job_none", "webhook_id": "whk_none", "model_id": f"model_{'0' * 40}", "dataset_id": f"dataset_{'0' * 40}"}
    return template.format(**ids, name="x")


def assert_problem(response: httpx.Response, status: int, code: str) -> RequestProblem:
    assert response.headers["content-type"] == "application/problem+json"
    problem = RequestProblem.model_validate_json(response.content)
    assert set(response.json()) == set(RequestProblem.model_fields)
    assert problem.request_id == response.headers["x-request-id"]
    assert (response.status_code, problem.status, problem.code) == (status, status, code)
    assert problem.type == f"urn:bayespress:problem:{code}"
    return problem


@pytest.fixture(scope="module")
def description(service: LiveService) -> dict[str, Any]:
    described: dict[str, Any] = service.client.get("/openapi.json").json()
    return described


def test_the_routes_of_this_file_are_all_there_are(description: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, methods in description["paths"].items() for method in methods}
    assert described == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "[::2]"])
def test_a_foreign_host_reaches_no_route(service: LiveService, method: str, path: str, host: str) -> None:
    assert_problem(service.client.request(method, path_of(path), headers={"Host": host}), 421, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
def test_loopback_names_are_hosts(service: LiveService, host: str) -> None:
    assert service.client.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_come_by_any_name(service: LiveService, path: str) -> None:
    assert service.client.get(path, headers={"Host": "10.0.0.1"}).json()["status"] == "ok"


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[0] in {"POST", "PATCH", "DELETE"}])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_page_of_another_site_cannot_write(service: LiveService, method: str, path: str, origin: str) -> None:
    assert_problem(service.client.request(method, path_of(path), headers={"Origin": origin}), 403, "origin_not_allowed")


def test_a_page_of_the_service_itself_can_write_and_anyone_can_read(service: LiveService) -> None:
    job = service.insert_finished(Status.QUEUED, {})
    own = service.client.post(f"/v1/jobs/{job.id}/cancel", headers={"Origin": service.url})
    assert own.status_code == 202
    assert service.client.get("/v1/jobs", headers={"Origin": "https://evil.example"}).status_code == 200


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_other_methods_are_a_405_that_names_the_right_ones(service: LiveService, method: str, path: str) -> None:
    response = service.client.put(path_of(path))
    assert_problem(response, 405, "method_not_allowed")
    has_head = path.endswith(("{name}", ".zip", "/report", "/schema"))
    allowed = {"GET", "HEAD"} if has_head else {known for known, other in ROUTES if other == path}
    assert method in allowed
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/jobs/", "/v2/jobs", "/docs", "/v1/jobs/a/b/c", "/%00", "/..%2f..%2fetc/passwd"])
def test_other_paths_are_a_404(service: LiveService, path: str) -> None:
    assert_problem(service.client.get(path), 404, "not_found")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service whose tables have gone."""
    settings = service_settings(tmp_path_factory.mktemp("broken"))
    with serving(settings) as live:
        engine = create_engine(settings.database)
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE jobs"))
            connection.execute(text("DROP TABLE uploads"))
        engine.dispose()
        yield live


@pytest.mark.parametrize(("method", "path"), [route for route in GUARDED if route[1] not in NEEDS_NO_TABLE])
def test_a_failure_inside_is_a_500_that_tells_nothing_of_it(broken: LiveService, method: str, path: str) -> None:
    form: dict[str, Any] = {"files": {"model": ("m", MODEL), "dataset_ref": (None, "builtin:digits")}}
    bodies: dict[str, dict[str, Any]] = {"/v1/models": {"content": MODEL}, "/v1/datasets": {"files": {"train": ("d", PARQUET_FILE)}}}
    response = broken.client.request(method, path_of(path), **(bodies.get(path, form) if method == "POST" else {}))
    assert_problem(response, 500, "internal_error")
    assert "jobs" not in response.text.lower().replace("/v1/jobs", "")
    # Of an upload nobody knows what a failing database has kept; the sweep finds out.
    uploads = broken.settings.store_root / "uploads"
    assert [path for path in broken.settings.store_root.rglob("*") if path.is_file() and not path.is_relative_to(uploads)] == []


def test_a_service_without_its_table_is_alive_and_not_ready(broken: LiveService) -> None:
    assert broken.client.get("/livez").json() == {"status": "ok", "checks": []}
    assert assert_problem(broken.client.get("/readyz"), 503, "not_ready").param == "database"


def test_a_whole_service_is_ready(service: LiveService) -> None:
    assert service.client.get("/readyz").json() == {"status": "ok", "checks": ["database", "store"]}


def test_codes_are_one_per_class_and_all_in_the_drawn_tree() -> None:
    classes = ApiError.__subclasses__()
    codes = [cls.code for cls in (*classes, *error_classes())]
    assert len(set(codes)) == len(codes)
    tree = str(problems.__doc__)
    for cls in classes:
        assert re.search(rf"── {cls.__name__} +{cls.status}\b", tree), cls.__name__


def test_every_code_is_in_the_table_and_the_table_in_the_description(description: dict[str, Any]) -> None:
    raised = raised_errors()
    # The classes that only hold others together are none of them; the app has imported all others.
    assert set(raised) == {*error_classes(), *ApiError.__subclasses__()} - {ModelError, DatasetError}
    schemas = description["components"]["schemas"]
    assert schemas["ErrorCode"]["enum"] == [cls.code for cls in raised]
    for cls in raised:
        assert f"`{cls.code}` ({cls.status}): {cls.title}" in schemas["ErrorCode"]["description"]
    for name in ("Problem", "RequestProblem"):
        assert schemas[name]["properties"]["code"] == {"$ref": "#/components/schemas/ErrorCode"}


def test_operations_have_stable_names_and_document_their_problems(description: dict[str, Any]) -> None:
    operations = list(itertools.chain.from_iterable(methods.values() for methods in description["paths"].values()))
    assert sorted(operation["operationId"] for operation in operations) == [
        "cancel_job",
        "change_webhook",
        "compress",
        "create_job",
        "create_webhook",
        "delete_dataset",
        "delete_job",
        "delete_model",
        "delete_webhook",
        "download_artifact",
        "download_artifacts",
        "get_config_schema",
        "get_dataset",
        "get_info",
        "get_job",
        "get_model",
        "get_report",
        "get_webhook",
        "list_artifacts",
        "list_datasets",
        "list_events",
        "list_jobs",
        "list_models",
        "list_webhook_deliveries",
        "list_webhooks",
        "livez",
        "pause_job",
        "readyz",
        "resume_job",
        "retry_job",
        "rotate_webhook_secret",
        "test_webhook",
        "upload_dataset",
        "upload_model",
    ]
    for operation in operations:
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert response["content"] == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/RequestProblem"}}}, (
                    operation["operationId"],
                    status,
                )
            assert "X-Request-ID" in response["headers"]


def test_every_reference_of_the_description_leads_somewhere(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    components = {f"#/components/{room}/{name}" for room, named in description["components"].items() for name in named}
    assert references(description) - components == set()
    assert {"CompressionConfig", "Inspection", "Report", "Problem", "JobView"} <= set(schemas)
    assert not any("ValidationError" in name for name in schemas)
