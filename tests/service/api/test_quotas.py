"""Quotas over real HTTP: what is refused, with what answer, and that of many requests at once no more come in than may."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.jobs.quotas.quota import Quotas
from service.jobs.states import Status
from tests.postgres import postgres_server
from tests.service.api.live import LiveService, service_settings, serving
from tests.service.api.sample_files import MODEL
from tests.service.api.test_authentication import bearer
from tests.service.api.test_problems import assert_problem

FORM = {"model": ("m.onnx", MODEL), "dataset_ref": (None, b"builtin:digits")}
AT_ONCE = 20


def send(service: LiveService, key: str, **options: Any) -> httpx.Response:
    return service.client.post("/v1/jobs", files=FORM, headers=bearer(key) | options.pop("headers", {}), **options)


def assert_exceeded(response: httpx.Response, quota: str, detail: str) -> None:
    assert assert_problem(response, 429, "quota_exceeded").param == quota
    assert detail in response.json()["detail"]
    assert response.headers["retry-after"] == "30"


def test_jobs_beyond_the_limit_are_refused_until_others_have_finished(service: LiveService) -> None:
    key = service.make_key("jobs", quotas=Quotas(max_queued_jobs=2))
    first, _ = (send(service, key, headers={"Idempotency-Key": str(number)}).json() for number in range(2))
    before = service.left_behind()
    refused = send(service, key)
    assert_exceeded(refused, "max_queued_jobs", "max_queued_jobs is 2, of which 2 are used.")
    assert_exceeded(send(service, key, params={"validate_only": "true"}), "max_queued_jobs", "of which 2")
    assert_exceeded(send(service, key, headers={"Idempotency-Key": "new"}), "max_queued_jobs", "of which 2")
    assert service.left_behind() == before
    # The same request again is no new job.
    assert send(service, key, headers={"Idempotency-Key": "0"}).json()["id"] == first["id"]
    # Others are not concerned.
    assert send(service, service.make_key("other", quotas=Quotas(max_queued_jobs=1))).status_code == 202
    service.client.post(first["links"]["cancel"], headers=bearer(key))
    retried = service.client.post(first["links"]["retry"], headers=bearer(key))
    assert retried.status_code == 202
    assert_exceeded(service.client.post(first["links"]["retry"], headers=bearer(key)), "max_queued_jobs", "of which 2")
    # Another key of the same owner counts the same jobs.
    assert_exceeded(send(service, service.make_key("jobs", quotas=Quotas(max_queued_jobs=1))), "max_queued_jobs", "is 1, of which 2")


def test_bytes_beyond_the_limit_are_refused_until_something_is_deleted(service: LiveService) -> None:
    key = service.make_key("bytes", quotas=Quotas(max_stored_bytes=2 * len(MODEL) + 10))
    job = send(service, key).json()
    service.insert_finished(Status.SUCCEEDED, {"model.onnx": bytes(11)}, owner="bytes")
    before = service.left_behind()
    assert_exceeded(send(service, key), "max_stored_bytes", f"{len(MODEL) + 11:,} are used")
    assert service.left_behind() == before
    assert service.client.post(job["links"]["cancel"], headers=bearer(key)).status_code == 202
    assert service.client.post(job["links"]["retry"], headers=bearer(key)).json()["code"] == "quota_exceeded"
    assert service.left_behind() == before
    assert service.client.delete(job["links"]["self"], headers=bearer(key)).status_code == 204
    assert send(service, key).status_code == 202


def test_an_upload_is_as_large_as_service_and_key_allow(service: LiveService) -> None:
    small, large = (service.make_key("uploads", quotas=Quotas(max_upload_bytes=size)) for size in (100, 10**12))
    assert_problem(send(service, small), 413, "payload_too_large")
    assert send(service, large).status_code == 202
    beyond = service.client.post(
        "/v1/jobs",
        content=bytes(service.settings.max_upload_bytes + 1),
        headers={**bearer(large), "Content-Type": "multipart/form-data; boundary=x"},
    )
    assert_problem(beyond, 413, "payload_too_large")
    for key, limit in ((small, 100), (large, service.settings.max_upload_bytes)):
        assert service.client.get("/v1/info", headers=bearer(key)).json()["limits"]["max_upload_bytes"] == limit


def test_a_job_keeps_the_limit_of_running_jobs(service: LiveService) -> None:
    limited = send(service, service.make_key("runs", quotas=Quotas(max_running_jobs=3))).json()
    job = service.jobs.get(limited["id"])
    assert job is not None
    assert job.max_running_jobs == 3


def test_the_settings_are_the_defaults_also_without_keys(tmp_path: Path) -> None:
    settings = service_settings(tmp_path / "home").model_copy(
        update={"max_queued_jobs": 1, "max_running_jobs": 2, "max_stored_bytes": 10**6}
    )
    with serving(settings) as live:
        limits = live.client.get("/v1/info").json()["limits"]
        assert (limits["max_queued_jobs"], limits["max_running_jobs"], limits["max_stored_bytes"]) == (1, 2, 10**6)
        job = live.client.post("/v1/jobs", files=FORM).json()
        assert_exceeded(live.client.post("/v1/jobs", files=FORM), "max_queued_jobs", "of which 1")
        plain, own = live.make_key("plain"), live.make_key("own", quotas=Quotas(max_queued_jobs=2))
        assert [send(live, key).status_code for key in (plain, plain, own, own, own)] == [202, 429, 202, 202, 429]
        stored = live.jobs.get(job["id"])
        assert stored is not None
        assert stored.max_running_jobs == 2


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveService]:
    settings = service_settings(tmp_path / "home")
    with ExitStack() as stack:
        if request.param == "postgresql":
            settings = settings.model_copy(update={"database_url": stack.enter_context(postgres_server())})
        yield stack.enter_context(serving(settings))


def test_of_twenty_requests_at_once_no_more_come_in_than_may(shared: LiveService) -> None:
    key = shared.make_key("alice", quotas=Quotas(max_queued_jobs=5))

    def send_one(number: int) -> httpx.Response:
        headers = bearer(key) | ({"Idempotency-Key": str(number)} if number % 2 else {})
        return httpx.post(f"{shared.url}/v1/jobs", files=FORM, headers=headers, timeout=60)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(send_one, range(AT_ONCE)))
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [429] * 15
    for answer in answers:
        if answer.status_code == 429:
            assert_exceeded(answer, "max_queued_jobs", "of which 5 are used")
    taken = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert {job.id for job in shared.jobs.list_recent(100)} == taken
    assert shared.store.folders("jobs") == taken
