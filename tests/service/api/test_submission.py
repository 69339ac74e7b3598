"""POST /compress over real HTTP: what is taken, and that whatever is refused leaves nothing behind."""

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL, NPZ_FILE, PARQUET_FILE

Part = tuple[str, tuple[str | None, bytes]]
BOUNDARY = b"a-boundary"
MULTIPART = {"Content-Type": "multipart/form-data; boundary=a-boundary"}


def form(*parts: Part) -> bytes:
    body = b""
    for name, (filename, data) in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
        body += b"--" + BOUNDARY + b"\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n"
    return body + b"--" + BOUNDARY + b"--\r\n"


def chunked(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


# Field 6, 2,000,000 bytes.
HUGE_DOC_STRING = b"\x32\x80\x89\x7a" + bytes(2_000_000)
MODEL_PART: Part = ("model", ("m.onnx", MODEL))
DATA_PART: Part = ("dataset", ("d.parquet", PARQUET_FILE))
REF_PART: Part = ("dataset_ref", (None, b"builtin:digits"))
CONFIG_PART: Part = ("config", (None, b'{"seed": 7}'))


def assert_refused(service: LiveService, response: httpx.Response, status: int, code: str, before: list[str]) -> dict[str, str]:
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, str] = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"] == f"urn:bayespress:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert service.left_behind() == before
    assert service.client.get("/livez").status_code == 200
    return problem


@pytest.mark.parametrize("path", ["/compress", "/v1/jobs"])
def test_a_job_is_accepted_and_its_files_are_stored_whole(service: LiveService, path: str) -> None:
    files = {"model": ("my model.onnx", MODEL), "dataset": ("d.bin", PARQUET_FILE), "test": ("t", NPZ_FILE)}
    response = service.client.post(path, files=files, data={"config": '{"seed": 7}'})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert int(response.headers["retry-after"]) > 0
    assert (job["status"], job["config"]["seed"], job["error"]) == ("queued", 7, None)
    assert job["inputs"]["model"]["filename"] == "my model.onnx"
    assert job["inputs"]["model"]["sha256"] == hashlib.sha256(MODEL).hexdigest()
    stored = service.jobs.get(job["id"])
    assert stored is not None
    for name, data, suffix in (("model", MODEL, ".onnx"), ("dataset", PARQUET_FILE, ".parquet"), ("test", NPZ_FILE, ".npz")):
        key = stored.inputs[name].key
        assert key is not None
        assert key.endswith(suffix)
        assert (service.settings.store_root / key).read_bytes() == data
        assert stored.inputs[name].bytes == len(data)
    assert service.client.get(response.headers["location"]).json() == job


@given(
    order=st.permutations([MODEL_PART, DATA_PART, CONFIG_PART, ("validation", ("v", NPZ_FILE))]),
    size=st.sampled_from([1, 7, 100, 4096, 1_000_000]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_come_in_any_order_and_any_chunks(service: LiveService, order: list[Part], size: int) -> None:
    response = service.client.post("/compress", content=chunked(form(*order), size), headers=MULTIPART)
    assert response.status_code == 202, response.text
    assert response.json()["inputs"]["model"]["sha256"] == hashlib.sha256(MODEL).hexdigest()
    assert response.json()["inputs"]["validation"]["sha256"] == hashlib.sha256(NPZ_FILE).hexdigest()


def test_data_that_look_like_a_boundary_pass_unharmed(service: LiveService) -> None:
    tricky = PARQUET_FILE[:4] + b"\r\n--a-boundar\r\n--a-boundaryX\r\r\n-" * 50 + PARQUET_FILE[4:]
    for size in (1, 13, 100_000):
        response = service.client.post("/compress", content=chunked(form(MODEL_PART, ("dataset", ("d", tricky))), size), headers=MULTIPART)
        assert response.json()["inputs"]["dataset"]["sha256"] == hashlib.sha256(tricky).hexdigest()


def test_a_config_may_be_a_file_and_a_curl_form_is_taken(service: LiveService) -> None:
    body = form(REF_PART, ("config", ("config.json", b'{"max_metric_drop": 0.01}')), MODEL_PART)
    response = service.client.post("/compress", content=body, headers=MULTIPART)
    assert response.status_code == 202
    assert response.json()["config"]["max_metric_drop"] == 0.01
    assert response.json()["inputs"]["dataset"] == {"ref": "builtin:digits", "filename": None, "bytes": None, "sha256": None}


def text_part(name: str, text: str) -> Part:
    return (name, (None, text.encode()))


REFUSALS: dict[str, tuple[list[Part], int, str, str]] = {
    "text as model": ([("model", ("m.onnx", b"no model\n" * 99)), DATA_PART], 422, "invalid_model", "model"),
    "truncated model": ([("model", ("m.onnx", MODEL[:-20])), DATA_PART], 422, "invalid_model", "model"),
    "text as dataset": ([MODEL_PART, ("dataset", ("d.csv", b"x,label\n1,2\n"))], 422, "invalid_dataset", "dataset"),
    "truncated dataset": ([MODEL_PART, ("dataset", ("d", PARQUET_FILE[:-5]))], 422, "invalid_dataset", "dataset"),
    "text as test": ([MODEL_PART, DATA_PART, ("test", ("d.csv", b"x,label\n1,2\n"))], 422, "invalid_dataset", "test"),
    "empty model": ([("model", ("m", b"")), DATA_PART], 422, "invalid_model", "model"),
    "no model": ([DATA_PART], 422, "missing_part", "model"),
    "no dataset": ([MODEL_PART], 422, "missing_part", "dataset"),
    "nothing": ([], 422, "missing_part", "model"),
    "unknown part": ([MODEL_PART, DATA_PART, text_part("callback", "x")], 422, "unknown_part", "callback"),
    "model twice": ([MODEL_PART, DATA_PART, MODEL_PART], 422, "duplicate_part", "model"),
    "config twice": ([MODEL_PART, CONFIG_PART, CONFIG_PART, DATA_PART], 422, "duplicate_part", "config"),
    "dataset and its ref": ([MODEL_PART, DATA_PART, REF_PART], 422, "conflicting_parts", "dataset_ref"),
    "ref and its dataset": ([MODEL_PART, REF_PART, DATA_PART], 422, "conflicting_parts", "dataset"),
    "unknown key": ([MODEL_PART, DATA_PART, text_part("config", '{"sparsity": 0.9}')], 422, "invalid_config", "sparsity"),
    "wrong value": ([MODEL_PART, DATA_PART, text_part("config", '{"epochs": -1}')], 422, "invalid_config", "epochs"),
    "not a number": ([MODEL_PART, DATA_PART, text_part("config", '{"beta": NaN}')], 422, "invalid_config", "beta"),
    "no JSON": ([MODEL_PART, DATA_PART, text_part("config", "seed=1")], 422, "invalid_config", "config"),
    "no object": ([MODEL_PART, DATA_PART, text_part("config", "[1]")], 422, "invalid_config", "config"),
    "deep JSON": ([MODEL_PART, DATA_PART, text_part("config", "[" * 50_000)], 422, "invalid_config", "config"),
    "huge config": ([MODEL_PART, DATA_PART, text_part("config", " " * 70_000)], 413, "payload_too_large", "config"),
    "binary config": ([MODEL_PART, DATA_PART, ("config", (None, b"\xff\xfe"))], 400, "invalid_multipart", "config"),
    "huge model": ([("model", ("m", MODEL + HUGE_DOC_STRING)), DATA_PART], 413, "payload_too_large", "model"),
    "unknown scheme": ([MODEL_PART, text_part("dataset_ref", "ftp://a/b")], 422, "invalid_dataset_ref", "dataset_ref"),
    "a scheme that is off": ([MODEL_PART, text_part("dataset_ref", "s3://a/b")], 422, "dataset_ref_not_allowed", "dataset_ref"),
    "whole as a part": ([MODEL_PART, DATA_PART, text_part("test_ref", "builtin:digits")], 422, "invalid_dataset_ref", "test_ref"),
    "metadata twice": ([MODEL_PART, DATA_PART, *[text_part("metadata", "{}")] * 2], 422, "duplicate_part", "metadata"),
    "metadata as a list": ([MODEL_PART, DATA_PART, text_part("metadata", "[]")], 422, "invalid_metadata", "metadata"),
    "metadata as no JSON": ([MODEL_PART, DATA_PART, text_part("metadata", "a=b")], 422, "invalid_metadata", "metadata"),
    "deep metadata": ([MODEL_PART, DATA_PART, text_part("metadata", "[" * 50_000)], 422, "invalid_metadata", "metadata"),
    "a number in metadata": ([MODEL_PART, DATA_PART, text_part("metadata", '{"a": 1}')], 422, "invalid_metadata", "metadata.a"),
    "a NUL in metadata": ([MODEL_PART, DATA_PART, text_part("metadata", '{"a": "\\u0000"}')], 422, "invalid_metadata", "metadata.a"),
    "half a character": ([MODEL_PART, DATA_PART, text_part("metadata", '{"a": "\\ud800"}')], 422, "invalid_metadata", "metadata.a"),
    "a long value": ([MODEL_PART, DATA_PART, text_part("metadata", f'{{"a": "{"x" * 513}"}}')], 422, "invalid_metadata", "metadata.a"),
    "a long key": ([MODEL_PART, DATA_PART, text_part("metadata", f'{{"{"x" * 65}": ""}}')], 422, "invalid_metadata", "metadata"),
    "an empty key": ([MODEL_PART, DATA_PART, text_part("metadata", '{"": ""}')], 422, "invalid_metadata", "metadata"),
    "a quote in a key": ([MODEL_PART, DATA_PART, text_part("metadata", '{"a\\"b": ""}')], 422, "invalid_metadata", "metadata"),
    "17 pairs": (
        [MODEL_PART, DATA_PART, text_part("metadata", json.dumps(dict.fromkeys("abcdefghijklmnopq", "")))],
        422,
        "invalid_metadata",
        "metadata",
    ),
    "outside": ([MODEL_PART, text_part("dataset_ref", "file:/etc/passwd")], 422, "dataset_ref_not_allowed", "dataset_ref"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_form_names_its_part_and_leaves_nothing(service: LiveService, case: str) -> None:
    parts, status, code, param = REFUSALS[case]
    before = service.left_behind()
    problem = assert_refused(service, service.client.post("/compress", content=form(*parts), headers=MULTIPART), status, code, before)
    assert (problem["param"] or "") == param


MALFORMED = {
    "other boundary": form(MODEL_PART).replace(BOUNDARY, b"another"),
    "no closing boundary": form(MODEL_PART, DATA_PART)[:-8],
    "a part without a name": b"--a-boundary\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a-boundary--\r\n",
    "a part without headers": b"--a-boundary\r\n\r\nx\r\n--a-boundary--\r\n",
    "encoded": form(MODEL_PART).replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1),
    "a header without end": b"--a-boundary\r\nContent-Disposition: " + b"x" * 100_000,
    "many headers": b"--a-boundary\r\n" + b"X-A: b\r\n" * 1000 + b"\r\nx\r\n--a-boundary--\r\n",
    "empty": b"",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_body_is_a_400(service: LiveService, case: str) -> None:
    before = service.left_behind()
    response = service.client.post("/compress", content=MALFORMED[case], headers=MULTIPART)
    assert_refused(service, response, 400, "invalid_multipart", before)


@pytest.mark.parametrize(
    "content_type", ["application/x-json", "text/plain", "application/x-www-form-urlencoded", "multipart/mixed; boundary=a"]
)
def test_another_content_type_is_a_415(service: LiveService, content_type: str) -> None:
    before = service.left_behind()
    response = service.client.post("/compress", content=b"{}", headers={"Content-Type": content_type})
    assert_refused(service, response, 415, "unsupported_media_type", before)


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 300}"]
)
def test_a_missing_or_endless_boundary_is_a_400(service: LiveService, content_type: str) -> None:
    before = service.left_behind()
    response = service.client.post("/compress", content=form(MODEL_PART), headers={"Content-Type": content_type})
    assert_refused(service, response, 400, "invalid_multipart", before)


@contextmanager
def raw_post(service: LiveService, content_length: int) -> Iterator[socket.socket]:
    """A connection on which the head of a POST has been sent."""
    fields = ("POST /compress HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *(f"{name}: {value}" for name, value in MULTIPART.items()))
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.sendall(("\r\n".join(fields) + f"\r\nContent-Length: {content_length}\r\n\r\n").encode())
        yield connection


def read_answer(connection: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"}"):
        received = connection.recv(65536)
        assert received, answer
        answer += received
    return answer


def test_a_body_over_the_cap_is_refused_by_its_content_length_before_it_is_sent(service: LiveService) -> None:
    before = service.left_behind()
    with raw_post(service, 10**10) as connection:
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"payload_too_large"' in answer
    assert service.left_behind() == before


def test_a_chunked_body_over_the_cap_is_refused_while_it_comes(service: LiveService) -> None:
    before = service.left_behind()
    body = form(MODEL_PART, ("dataset", ("d", PARQUET_FILE[:4] + bytes(30_000_000) + b"PAR1")))
    response = service.client.post("/compress", content=chunked(body, 65536), headers=MULTIPART)
    assert_refused(service, response, 413, "payload_too_large", before)


def test_a_wrong_file_is_refused_before_the_body_ends(service: LiveService) -> None:
    before = service.left_behind()
    with raw_post(service, 1_000_000) as connection:
        connection.sendall(form(("model", ("m", b"text " * 1000)))[:-20])
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"it looks like text" in answer
    assert service.left_behind() == before


def test_an_aborted_upload_leaves_nothing(service: LiveService) -> None:
    before = service.left_behind()
    body = form(MODEL_PART, ("dataset", ("d", PARQUET_FILE[:4] + bytes(3_000_000))))
    with raw_post(service, len(body)) as connection:
        connection.sendall(body[:2_500_000])
        wait_until(lambda: service.left_behind() != before)
    wait_until(lambda: service.left_behind() == before)
    assert service.client.get("/livez").status_code == 200


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_file_under_a_data_root_is_taken_by_reference(service: LiveService, data_root: Path) -> None:
    (data_root / "train.parquet").write_bytes(PARQUET_FILE)
    (data_root / "link").symlink_to(data_root / "train.parquet")
    for reference in (f"file:{data_root}/train.parquet", f"file://{data_root}/link"):
        response = service.client.post("/compress", content=form(MODEL_PART, text_part("dataset_ref", reference)), headers=MULTIPART)
        assert response.status_code == 202
        given = response.json()["inputs"]["dataset"]
        assert given["ref"] == f"file:{data_root}/train.parquet"
        assert given["bytes"] == len(PARQUET_FILE)


def test_what_lies_outside_the_data_roots_cannot_be_told_from_nothing(service: LiveService, data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.parquet").write_bytes(PARQUET_FILE)
    (data_root / "to-secret").symlink_to(tmp_path / "secret.parquet")
    (data_root / "to-nothing").symlink_to(tmp_path / "nothing")
    before = service.left_behind()
    answers = set()
    for path in (tmp_path / "secret.parquet", tmp_path / "nothing", tmp_path, data_root / "to-secret", data_root / "to-nothing"):
        content = form(MODEL_PART, text_part("dataset_ref", f"file:{path}"))
        response = service.client.post("/compress", content=content, headers={**MULTIPART, "X-Request-ID": "the-same"})
        assert_refused(service, response, 422, "dataset_ref_not_allowed", before)
        answers.add(response.text)
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("{root}/none.parquet", "invalid_dataset_ref"),
        ("{root}", "invalid_dataset_ref"),
        ("{root}/notes.txt", "invalid_dataset"),
        ("{root}/rows.csv", "invalid_dataset_ref"),
        ("{root}/sub/../train.parquet", "invalid_dataset_ref"),
        ("{root}-beside/x.parquet", "dataset_ref_not_allowed"),
        ("train.parquet", "invalid_dataset_ref"),
        ("{root}/\0", "invalid_dataset_ref"),
        ("/" + "x" * 5000, "invalid_dataset_ref"),
    ],
)
def test_a_wrong_path_under_a_data_root_is_refused(service: LiveService, data_root: Path, path: str, code: str) -> None:
    (data_root / "notes.txt").write_text("no rows here")
    (data_root / "rows.csv").write_bytes(PARQUET_FILE)
    before = service.left_behind()
    reference = text_part("dataset_ref", "file:" + path.format(root=data_root))
    response = service.client.post("/compress", content=form(MODEL_PART, reference), headers=MULTIPART)
    assert_refused(service, response, 422, code, before)


def test_a_problem_is_readable_by_a_person(service: LiveService) -> None:
    response = service.client.post("/compress", content=form(MODEL_PART, text_part("config", '{"sparsity": 1}')), headers=MULTIPART)
    problem = json.loads(response.text)
    assert "'sparsity' is not an option" in problem["detail"]
    assert "max_metric_drop" in problem["suggestion"]
