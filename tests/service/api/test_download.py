"""Artifacts over HTTP: ETag, conditions, ranges, digests, sizes; every range against the slice."""

import base64
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
# The representation of RFC 9530, appendix B; its digests stand there.
HELLO = b'{"hello": "world"}\n'
HELLO_DIGEST = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
FILES = {"model.onnx": DATA, "report.json": REPORT, "empty": b"", "hello.json": HELLO}


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
        ("bytes=0-1,", 200, DATA),
        ("BYTES=0-1", 206, DATA[:2]),
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


@pytest.mark.parametrize("name", ["model.onnx", "empty"])
def test_a_range_that_comes_twice_is_ignored(service: LiveService, job: Job, name: str) -> None:
    lines = [("Range", "bytes=0-1"), ("Range", "bytes=4-5")]
    response = service.client.get(f"/v1/jobs/{job.id}/artifacts/{name}", headers=lines)
    assert (response.status_code, response.content) == (200, FILES[name])


@pytest.mark.parametrize(("header", "status"), [("bytes=0-", 416), ("bytes=0-0", 416), ("bytes=-0", 416), ("bytes=-1", 200)])
def test_an_empty_file_has_no_range(service: LiveService, job: Job, header: str, status: int) -> None:
    response = fetch(service, job, {"Range": header}, "empty")
    assert response.status_code == status
    assert response.headers.get("content-range") == ("bytes */0" if status == 416 else None)


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


def test_a_304_says_which_version_it_is_and_nothing_of_the_file(service: LiveService, job: Job) -> None:
    headers = fetch(service, job, {"If-None-Match": ETAG}).headers
    assert set(headers) <= {"etag", "cache-control", "date", "server", "x-request-id"}


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 200), ("*", 200), (f'"a", {ETAG}', 200), ('"a"', 412), (f"W/{ETAG}", 412), (ETAG.strip('"'), 412), ("", 412)],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_match_compares_strongly(service: LiveService, job: Job, condition: str, status: int, method: str) -> None:
    response = service.client.request(method, f"/v1/jobs/{job.id}/artifacts/model.onnx", headers={"If-Match": condition})
    assert response.status_code == status
    if status == 412 and method == "GET":
        assert (response.json()["code"], response.json()["param"]) == ("precondition_failed", "If-Match")


def test_conditions_may_come_in_several_lines(service: LiveService, job: Job) -> None:
    path = f"/v1/jobs/{job.id}/artifacts/model.onnx"
    assert service.client.get(path, headers=[("If-None-Match", '"a"'), ("If-None-Match", ETAG)]).status_code == 304
    assert service.client.get(path, headers=[("If-Match", '"a"'), ("If-Match", ETAG)]).status_code == 200


# RFC 9110, 13.2.2: If-Match first, then If-None-Match, then If-Range; a date of no representation is ignored (13.1.4).
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"a"', "If-None-Match": ETAG}, 412),
        ({"If-Match": ETAG, "If-None-Match": ETAG}, 304),
        ({"If-None-Match": ETAG, "Range": "bytes=0-1"}, 304),
        ({"If-Match": '"a"', "Range": "bytes=999999-"}, 412),
        ({"If-Match": ETAG, "If-None-Match": '"a"', "Range": "bytes=0-1", "If-Range": ETAG}, 206),
        ({"If-Range": '"a"', "Range": "bytes=999999-"}, 200),
        ({"If-Unmodified-Since": "Mon, 01 Jan 1990 00:00:00 GMT"}, 200),
        ({"If-Modified-Since": "Mon, 01 Jan 2099 00:00:00 GMT"}, 200),
    ],
)
def test_precedence_of_conditions(service: LiveService, job: Job, headers: dict[str, str], status: int) -> None:
    assert fetch(service, job, headers).status_code == status


def test_a_condition_on_what_is_not_there_is_a_404(service: LiveService, job: Job) -> None:
    for condition in ({"If-Match": '"a"'}, {"If-None-Match": "*"}):
        assert fetch(service, job, condition, "none.onnx").status_code == 404


def test_digests_are_those_of_the_rfc(service: LiveService, job: Job) -> None:
    whole = fetch(service, job, name="hello.json")
    assert whole.content == HELLO
    assert whole.headers["content-digest"] == whole.headers["repr-digest"] == HELLO_DIGEST
    # B.4: of a part, Repr-Digest is that of the whole; the part's own one is not known before it has been sent.
    part = fetch(service, job, {"Range": "bytes=10-18"}, "hello.json")
    assert (part.status_code, part.content, part.headers["repr-digest"]) == (206, b'"world"}\n', HELLO_DIGEST)
    assert "content-digest" not in part.headers
    # B.2: of a HEAD, the content is empty.
    head = service.client.head(f"/v1/jobs/{job.id}/artifacts/hello.json")
    assert head.headers["repr-digest"] == HELLO_DIGEST
    assert "content-digest" not in head.headers


@pytest.mark.parametrize("name", FILES)
def test_a_digest_is_the_etag_in_base64(service: LiveService, job: Job, name: str) -> None:
    headers = fetch(service, job, name=name).headers
    prefix, digest, suffix = headers["repr-digest"].partition("=")[2].split(":")
    assert (prefix, suffix, base64.b64decode(digest).hex()) == ("", "", headers["etag"].strip('"'))


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
