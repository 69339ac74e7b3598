"""/v1/webhooks over HTTP: what is shown, what is refused, what comes of a test."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.json_request import MAX_BYTES
from service.jobs.clock import utc_now
from service.jobs.job import new_job
from service.webhooks.endpoint import DEFAULT_EVENTS, MAX_ENDPOINTS, new_endpoint
from service.webhooks.repository import EndpointRepository
from tests.service.api.live import LiveService
from tests.service.api.test_problems import assert_problem

URL = "https://example.org/hook"
ROOM = "/v1/webhooks"


@pytest.fixture(autouse=True)
def _clear(service: LiveService) -> Iterator[None]:
    yield
    for webhook in service.client.get(ROOM).json()["data"]:
        service.client.delete(f"{ROOM}/{webhook['id']}")


def create(service: LiveService, **values: Any) -> dict[str, Any]:
    response = service.client.post(ROOM, json={"url": URL} | values)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    assert response.headers["location"] == f"{ROOM}/{created['id']}"
    return created


def test_the_secret_is_shown_once(service: LiveService) -> None:
    created = create(service, description="CI")
    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    assert created["events"] == list(DEFAULT_EVENTS)
    path = f"{ROOM}/{created['id']}"
    assert service.client.get(path).json() == created
    assert service.client.get(ROOM).json() == {"data": [created]}
    rotated = service.client.post(f"{path}/rotate-secret").json()
    assert rotated.pop("secret") not in {secret, None}
    assert rotated == created
    for response in (service.client.get(path), service.client.get(ROOM), service.client.patch(path, json={"enabled": True})):
        assert "whsec_" not in response.text
        assert "secret" not in response.text


def test_changed_and_deleted(service: LiveService) -> None:
    created = create(service)
    path = f"{ROOM}/{created['id']}"
    assert service.client.patch(path, json={}).json()["url"] == URL
    changed = service.client.patch(path, json={"url": f"{URL}/2", "events": ["job.failed", "job.failed"], "description": "é"}).json()
    assert (changed["url"], changed["events"], changed["description"], changed["enabled"]) == (f"{URL}/2", ["job.failed"], "é", True)
    assert service.client.patch(path, json={"description": None}).json()["description"] is None
    disabled = service.client.patch(path, json={"enabled": False}).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, None)
    assert_problem(service.client.post(f"{path}/test"), 409, "webhook_disabled")
    assert service.client.delete(path).status_code == 204
    for method, part in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/rotate-secret"), ("GET", "/deliveries")):
        assert_problem(service.client.request(method, path + part), 404, "webhook_not_found")
    assert_problem(service.client.patch(path, json={"enabled": True}), 404, "webhook_not_found")


def test_anothers_is_a_404(service: LiveService) -> None:
    other = new_endpoint("other", URL, DEFAULT_EVENTS, None, utc_now())
    assert EndpointRepository(service.jobs.engine).insert(other)
    path = f"{ROOM}/{other.id}"
    assert service.client.get(ROOM).json() == {"data": []}
    for method, part in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/rotate-secret"), ("GET", "/deliveries")):
        assert_problem(service.client.request(method, path + part), 404, "webhook_not_found")
    assert_problem(service.client.patch(path, json={"enabled": False}), 404, "webhook_not_found")
    assert EndpointRepository(service.jobs.engine).get("other", other.id) == other


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "http://example.org/",
    ],
)
def test_a_webhook_to_loopback_is_refused(service: LiveService, url: str) -> None:
    assert assert_problem(service.client.post(ROOM, json={"url": url}), 422, "webhook_url_not_allowed").param == "url"
    path = f"{ROOM}/{create(service)['id']}"
    assert_problem(service.client.patch(path, json={"url": url}), 422, "webhook_url_not_allowed")
    assert service.client.get(path).json()["url"] == URL


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "url"),
        ({"url": 3}, "url"),
        ({"url": None}, "url"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["job.done"]}, "events.0"),
        ({"url": URL, "events": ["webhook.test"]}, "events.0"),
        ({"url": URL, "description": "a" * 201}, "description"),
        ({"url": URL, "description": "a\x00b"}, "description"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
        ([], "body"),
    ],
)
def test_a_wrong_member_is_named(service: LiveService, body: object, param: str) -> None:
    assert assert_problem(service.client.post(ROOM, json=body), 422, "invalid_request").param == param


@pytest.mark.parametrize("body", [{"url": None}, {"events": None}, {"enabled": None}, {"enabled": "maybe"}, {"owner": "x"}, {"id": "x"}])
def test_a_wrong_change_is_named(service: LiveService, body: dict[str, object]) -> None:
    path = f"{ROOM}/{create(service)['id']}"
    assert assert_problem(service.client.patch(path, json=body), 422, "invalid_request").param == next(iter(body))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"url": "\\ud800"}', b"[" * 5000, b"{} {}"])
def test_what_is_no_json_is_a_400(service: LiveService, body: bytes) -> None:
    response = service.client.post(ROOM, content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert_problem(response, 400, "invalid_json")


@given(st.binary(max_size=200))
def test_no_body_breaks_it(service: LiveService, body: bytes) -> None:
    response = service.client.post(ROOM, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in {400, 422}


def test_a_large_body_is_a_413(service: LiveService) -> None:
    body = b'{"url": "' + b"a" * MAX_BYTES + b'"}'
    assert_problem(service.client.post(ROOM, content=body, headers={"Content-Type": "application/json"}), 413, "payload_too_large")


def test_there_may_be_so_many(service: LiveService) -> None:
    for _ in range(MAX_ENDPOINTS):
        create(service)
    assert_problem(service.client.post(ROOM, json={"url": URL}), 409, "too_many_webhooks")


def test_deliveries_are_shown_in_pages(service: LiveService) -> None:
    created = create(service, events=["job.queued"])
    path = f"{ROOM}/{created['id']}"
    tested = service.client.post(f"{path}/test")
    assert tested.status_code == 202
    assert (tested.json()["type"], tested.json()["status"], tested.json()["job_id"]) == ("webhook.test", "pending", None)
    jobs = [new_job(config={}, inputs={}) for _ in range(3)]
    for job in jobs:
        service.jobs.insert(job)
    first = service.client.get(f"{path}/deliveries", params={"limit": 2}).json()
    second = service.client.get(f"{path}/deliveries", params={"limit": 2, "after": first["next"]}).json()
    assert second["next"] is None
    shown = first["data"] + second["data"]
    assert [delivery["job_id"] for delivery in shown] == [job.id for job in reversed(jobs)] + [None]
    assert shown[-1] == tested.json()
    assert all((delivery["attempts"], delivery["last_status"], delivery["last_error"]) == (0, None, None) for delivery in shown)
    assert all(delivery["next_attempt_at"] for delivery in shown)
    assert created["secret"] not in str(shown)
