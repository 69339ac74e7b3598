"""Text that PostgreSQL takes in no column and no comparison (NUL, halves of surrogate pairs) is answered, on both databases, by no 500."""

import json
import uuid
from collections.abc import Iterator

import httpx
import pytest

from service.jobs.states import Status
from tests.postgres import postgres_server
from tests.service.api.live import LiveService, service_settings, serving

TEXTS = ["%00", "job%00", "%ED%A0%80", "%EF%BF%BF", "%FF", "%E2%80%A8", "a" * 300]
JOB_ROUTES = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/cancel"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/retry"),
    ("GET", "/events"),
    ("GET", "/artifacts"),
    ("GET", "/artifacts.zip"),
    ("GET", "/report"),
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    settings = service_settings(tmp_path_factory.mktemp("home"))
    if request.param == "sqlite":
        with serving(settings) as live:
            yield live
        return
    with postgres_server() as url, serving(settings.model_copy(update={"database_url": url})) as live:
        yield live


def send(service: LiveService, method: str, target: str) -> httpx.Response:
    """The target goes out as it stands; httpx would escape the percent signs of half a character anew."""
    url = httpx.URL(service.url).copy_with(raw_path=target.encode())
    return service.client.request(method, url)


def post(service: LiveService, body: dict[str, object]) -> httpx.Response:
    headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
    return service.client.post("/v1/jobs", content=json.dumps(body), headers=headers)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("method", "route"), JOB_ROUTES)
def test_an_id_that_no_job_can_have_is_not_found(service: LiveService, method: str, route: str, text: str) -> None:
    response = send(service, method, f"/v1/jobs/{text}{route}")
    assert (response.status_code, response.json()["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("text", TEXTS)
def test_nor_is_such_a_name_of_an_artifact(service: LiveService, text: str) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {"report.json": b"{}"})
    response = send(service, "GET", f"/v1/jobs/{job.id}/artifacts/{text}")
    assert (response.status_code, response.json()["code"]) == (404, "artifact_not_found")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("query", ["after={}", "metadata[a]={}", "metadata[{}]=b", "kind={}", "status={}"])
def test_the_filters_of_the_list_find_nothing_or_are_refused(service: LiveService, query: str, text: str) -> None:
    response = send(service, "GET", f"/v1/jobs?{query.format(text)}")
    assert response.status_code in {200, 422}
    assert response.status_code == 422 or response.json()["data"] == [] or query.startswith("after")


@pytest.mark.parametrize("text", ["\x00", "job_\x00", "\ud800", "￿", "x" * 300])
@pytest.mark.parametrize("part", ["parent_id", "model_ref", "dataset_ref", "kind"])
def test_the_members_of_a_request_are_refused(service: LiveService, part: str, text: str) -> None:
    others: dict[str, object] = {"kind": "select", "config": {"point": 0}} if part == "parent_id" else {"dataset_ref": "builtin:digits"}
    response = post(service, {**others, part: text})
    assert response.status_code == 422, response.text
    assert response.json()["param"] == part


@pytest.mark.parametrize("pair", [("a", "\x00"), ("\x00", "a"), ("a", "\ud800")])
def test_nor_are_they_metadata(service: LiveService, pair: tuple[str, str]) -> None:
    body = {"metadata": dict([pair])}
    response = post(service, body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_metadata")
