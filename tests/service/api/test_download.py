"""Artifacts over HTTP: ETag, conditions, ranges, sizes; every range against the slice."""

import hashlib
import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.jobs.job import Job
from service.jobs.states import Status
from tests.service.api.live import LiveService

DATA = bytes(range(256)) * 20 + b"end"
ETAG = f'"{hashlib.sha256(DATA).hexdigest()}"'
REPORT = json.dumps({"format_version": 1}).encode()
FILES = {"model.onnx": DATA, "report.json": REPORT, "empty": b""}


@pytest.fixture(scope="module")
def job(service: LiveService) -> Job:
    return service.insert_finished(Status.SUCCEEDED, FILES)


def fetch(service: LiveService, job: Job, headers: dict[str, str] | None = None, name: str = "model.onnx") -> httpx.Response:
    return service.client.get(f"/v1/jobs/{job.id}/artifacts/{name}", headers=headers or {})


def test_the_list_says_what_the_files_are(service: LiveService, job: Job) -> None:
    listed = service.client.get(f"/v1/jobs/{job.id}/artifacts").json()["data"]
    assert {artifact["name"] for artifact in listed} == set(FILES)
    for artifact in listed:
        data = service.client.get(artifact["href"]).content
        assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["bytes"], artifact["sha256"])


def test_a_whole_file_comes_with_a_strong_etag_and_a_name(service: LiveService, job: Job) -> None:
    response = fetch(service, job)
    assert (response.status_code, response.content) == (200, DATA)
    assert response.headers["etag"] == ETAG
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == 'attachment; filename="model.onnx"'
    assert response.headers["content-length"] == str(len(DATA))
    assert response.headers["x-content-type-options"] == "nosniff"
    assert fetch(service, job, name="empty").content == b""


@given(start=st.integers(0, len(DATA) + 50), length=st.integers(1, len(DATA)))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_range_is_the_slice(service: LiveService, job: Job, start: int, length: int) -> None:
    response = fetch(service, job, {"Range": f"bytes={start}-{start + length - 1}"})
    if start >= len(DATA):
        assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")
        assert response.headers["content-range"] == f"bytes */{len(DATA)}"
    else:
        end = min(start + length, len(DATA))
        assert (response.status_code, response.content) == (206, DATA[start:end])
        assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
        assert response.headers["etag"] == ETAG


@pytest.mark.parametrize(
    ("header", "status", "content"),
    [
        ("bytes=10-", 206, DATA[10:]),
        ("bytes=-3", 206, b"end"),
        ("bytes=-999999", 206, DATA),
        ("bytes=0-0", 206, DATA[:1]),
        ("bytes=-0", 416, None),
        ("bytes=5-2", 200, DATA),
        ("bytes=0-1,4-5", 200, DATA),
        ("bytes=a-b", 200, DATA),
        ("rows=0-1", 200, DATA),
        ("bytes=-", 200, DATA),
        (f"bytes={'9' * 40}-", 200, DATA),
    ],
)
def test_range_forms(service: LiveService, job: Job, header: str, status: int, content: bytes | None) -> None:
    response = fetch(service, job, {"Range": header})
    assert response.status_code == status
    assert content is None or response.content == content


@pytest.mark.parametrize(
    ("if_range", "status"), [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), ("Mon, 01 Jan 2024 00:00:00 GMT", 200)]
)
def test_if_range_guards_against_another_version(service: LiveService, job: Job, if_range: str, status: int) -> None:
    response = fetch(service, job, {"Range": "bytes=1-2", "If-Range": if_range})
    assert (response.status_code, response.content) == (status, DATA[1:3] if status == 206 else DATA)


@pytest.mark.parametrize(("condition", "status"), [(ETAG, 304), (f"W/{ETAG}", 304), (f'"a", {ETAG}', 304), ("*", 304), ('"a"', 200)])
def test_if_none_match(service: LiveService, job: Job, condition: str, status: int) -> None:
    response = fetch(service, job, {"If-None-Match": condition})
    assert (response.status_code, response.headers["etag"]) == (status, ETAG)
    assert response.content == (b"" if status == 304 else DATA)


def test_head_tells_the_size_and_sends_no_body(service: LiveService, job: Job) -> None:
    response = service.client.head(f"/v1/jobs/{job.id}/artifacts/model.onnx", headers={"Range": "bytes=0-1"})
    assert (response.status_code, response.content) == (200, b"")
    assert (response.headers["content-length"], response.headers["etag"]) == (str(len(DATA)), ETAG)


def test_the_report_is_the_artifact_byte_for_byte(service: LiveService, job: Job) -> None:
    response = service.client.get(f"/v1/jobs/{job.id}/report")
    assert (response.status_code, response.content) == (200, REPORT)
    assert response.headers["content-disposition"].startswith("inline")


@pytest.mark.parametrize("name", ["none.onnx", "..%2f..%2fbayespress.sqlite3", "%2e%2e", "model.onnx%00"])
def test_an_unknown_name_is_a_404(service: LiveService, job: Job, name: str) -> None:
    response = fetch(service, job, name=name)
    assert response.status_code == 404
    assert response.json()["code"] in {"artifact_not_found", "not_found"}


@pytest.mark.parametrize("path", ["artifacts", "artifacts/model.onnx", "report"])
def test_an_unfinished_job_has_no_artifacts_yet(service: LiveService, path: str) -> None:
    job = service.insert_finished(Status.QUEUED, {})
    response = service.client.get(f"/v1/jobs/{job.id}/{path}")
    assert (response.status_code, response.json()["code"]) == (409, "job_not_finished")
    assert response.headers["retry-after"]


def test_a_failed_job_has_an_empty_list_and_no_report(service: LiveService) -> None:
    job = service.insert_finished(Status.FAILED, {})
    assert service.client.get(f"/v1/jobs/{job.id}/artifacts").json() == {"data": []}
    assert service.client.get(f"/v1/jobs/{job.id}/report").json()["code"] == "artifact_not_found"


def test_a_file_that_has_gone_is_a_500_without_a_path(service: LiveService) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {"model.onnx": DATA})
    service.store.delete_prefix(f"jobs/{job.id}")
    response = fetch(service, job)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert str(service.settings.home) not in response.text
    assert service.client.get("/livez").status_code == 200
