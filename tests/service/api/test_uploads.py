"""/v1/models and /v1/datasets over real HTTP: what is taken, kept once, listed, removed, and that whatever is refused leaves nothing."""

import base64
import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.jobs.uploads.repository import UploadRepository
from service.jobs.uploads.upload import UploadedFile, UploadKind
from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL, NPZ_FILE, PARQUET_FILE
from tests.service.api.test_submission import (
    HUGE_DOC_STRING,
    MULTIPART,
    Part,
    assert_refused,
    chunked,
    form,
    read_answer,
    wait_until,
)
from tests.service.storage.objects import put_bytes

OCTETS = {"Content-Type": "application/octet-stream"}


def with_doc_string(text: bytes) -> bytes:
    """Another model for every text of less than 2**21 bytes: field 6 of a ModelProto."""
    size = len(text)
    return MODEL + b"\x32" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + text


def uploads_of(service: LiveService) -> UploadRepository:
    return UploadRepository(service.jobs.engine)


def stored(service: LiveService) -> list[str]:
    """All files, jobs, models and datasets there are."""
    known = [upload["id"] for kind in ("models", "datasets") for upload in service.client.get(f"/v1/{kind}?limit=100").json()["data"]]
    return service.left_behind() + known


def content_of(service: LiveService, upload_id: str, part: str) -> bytes:
    upload = uploads_of(service).get("local", upload_id)
    assert upload is not None
    return (service.settings.store_root / upload.files[part].key).read_bytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def in_base64(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


@given(text=st.binary(max_size=20_000), sizes=st.tuples(*[st.sampled_from([1, 9, 4096, 70_000])] * 2), is_model=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_sent_twice_in_any_chunks_are_one_object(
    service: LiveService, text: bytes, sizes: tuple[int, int], is_model: bool
) -> None:
    data = with_doc_string(text) if is_model else b"PAR1rows" + text + b"PAR1"
    path, part = ("/v1/models", "model") if is_model else ("/v1/datasets", "train")
    first = service.client.post(path, content=chunked(data, sizes[0]))
    after = stored(service)
    again = service.client.post(path, content=chunked(data, sizes[1]))
    # Hypothesis sends some of them once more.
    assert (first.status_code in {200, 201}, again.status_code) == (True, 200)
    assert stored(service) == after
    assert (again.json()["id"], again.headers["location"]) == (first.json()["id"], first.headers["location"])
    found = first.json() if is_model else first.json()["parts"]["train"]
    assert (found["sha256"], found["bytes"]) == (sha256(data), len(data))
    assert content_of(service, first.json()["id"], part) == data


def test_a_model_is_shown_as_it_was_sent(service: LiveService) -> None:
    data = with_doc_string(b"shown")
    response = service.client.post("/v1/models", params={"filename": "my model.onnx"}, content=data, headers=OCTETS)
    assert response.status_code == 201
    model = response.json()
    assert model == {
        "id": f"model_{sha256(data)[:40]}",
        "kind": "model",
        "bytes": len(data),
        "sha256": sha256(data),
        "filename": "my model.onnx",
        "created_at": model["created_at"],
        "expires_at": model["expires_at"],
        "links": {"self": response.headers["location"]},
    }
    kept_for = datetime.fromisoformat(model["expires_at"]) - datetime.fromisoformat(model["created_at"])
    assert kept_for == timedelta(seconds=service.settings.retain_uploads_s)
    assert service.client.get(response.headers["location"]).json() == model
    assert model in service.client.get("/v1/models").json()["data"]


def test_a_dataset_has_parts(service: LiveService) -> None:
    rows = PARQUET_FILE[:4] + b"other rows" + PARQUET_FILE[4:]
    files = {"test": ("t.npz", NPZ_FILE), "train": ("d.parquet", rows)}
    response = service.client.post("/v1/datasets", files=files)
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert dataset["parts"] == {
        "test": {"bytes": len(NPZ_FILE), "sha256": sha256(NPZ_FILE), "filename": "t.npz"},
        "train": {"bytes": len(rows), "sha256": sha256(rows), "filename": "d.parquet"},
    }
    assert (dataset["kind"], dataset["bytes"]) == ("dataset", len(rows) + len(NPZ_FILE))
    assert service.client.get(response.headers["location"]).json() == dataset
    alone = service.client.post("/v1/datasets", content=rows, headers={"Content-Type": "application/vnd.apache.parquet"})
    assert (alone.status_code, list(alone.json()["parts"])) == (201, ["train"])
    as_form = service.client.post("/v1/datasets", files={"train": ("named otherwise", rows)})
    assert (as_form.status_code, as_form.json()) == (200, alone.json() | {"expires_at": as_form.json()["expires_at"]})
    # Three parts, two uploads, and of the same rows one object.
    keys = {
        upload.files["train"].key for known in (dataset["id"], alone.json()["id"]) if (upload := uploads_of(service).get("local", known))
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({}, None),
        ({"Content-Disposition": 'attachment; filename="a.onnx"'}, "a.onnx"),
        ({"Content-Disposition": "attachment"}, None),
        ({"Content-Disposition": b'attachment; filename="a\xc3\xa9.onnx"'}, "a\u00e9.onnx"),
        ({"Content-Type": "Application/X-Protobuf; v=1"}, None),
    ],
)
def test_a_name_may_come_with_the_body(service: LiveService, headers: dict[str, Any], name: str | None) -> None:
    response = service.client.post("/v1/models", content=with_doc_string(repr(headers).encode()), headers=headers)
    assert (response.status_code, response.json()["filename"]) == (201, name)


DIGESTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "parameter": ({"sha256": sha256(MODEL)}, {}),
    "upper case": ({"sha256": sha256(MODEL).upper()}, {}),
    "Repr-Digest": ({}, {"Repr-Digest": f"sha-256=:{in_base64(MODEL)}:"}),
    "Content-Digest": ({}, {"Content-Digest": f"sha-256=:{in_base64(MODEL)}:"}),
    "several": ({}, {"Repr-Digest": f"sha-512=:{'A' * 86}==:, sha-256=:{in_base64(MODEL)}:"}),
    "another algorithm": ({}, {"Repr-Digest": "md5=:AAAA:"}),
    "all": ({"sha256": sha256(MODEL)}, {"Repr-Digest": f"sha-256=:{in_base64(MODEL)}:", "Content-Digest": f"sha-256=:{in_base64(MODEL)}:"}),
}


@pytest.mark.parametrize("case", DIGESTS)
def test_an_expected_digest_is_held_against_the_bytes(service: LiveService, case: str) -> None:
    params, headers = DIGESTS[case]
    assert service.client.post("/v1/models", params=params, headers=headers, content=MODEL).status_code in {200, 201}
    if case == "another algorithm":
        return
    before = stored(service)
    other = service.client.post("/v1/models", params=params, headers=headers, content=with_doc_string(b"other"))
    problem = assert_refused(service, other, 422, "digest_mismatch", service.left_behind())
    assert problem["param"] in {"sha256", "Repr-Digest", "Content-Digest"}
    assert sha256(MODEL) in problem["detail"]
    rows = service.client.post("/v1/datasets", params=params, headers=headers, content=PARQUET_FILE)
    assert_refused(service, rows, 422, "digest_mismatch", service.left_behind())
    assert stored(service) == before


@pytest.mark.parametrize("value", ["sha-256=:AAAA:", "sha-256=", "sha-256=:%%%:", "sha-256=abc", "sha-512=:AA:, SHA-256=:x:"])
def test_a_digest_that_is_none_is_refused(service: LiveService, value: str) -> None:
    response = service.client.post("/v1/models", headers={"Repr-Digest": value}, content=MODEL)
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (422, "invalid_request", "Repr-Digest")


def test_a_form_has_no_sha256(service: LiveService) -> None:
    response = service.client.post("/v1/datasets", params={"sha256": "0" * 64}, files={"train": ("d", PARQUET_FILE)})
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (422, "invalid_request", "sha256")


def part(name: str, data: bytes) -> Part:
    return (name, (name, data))


RAW_REFUSALS: dict[str, tuple[str, bytes, dict[str, str], int, str]] = {
    "text": ("models", b"no model\n" * 99, {}, 422, "invalid_model"),
    "rows as a model": ("models", PARQUET_FILE, {}, 422, "invalid_model"),
    "a model as rows": ("datasets", MODEL, {}, 422, "invalid_dataset"),
    "an empty model": ("models", b"", {}, 422, "invalid_model"),
    "empty rows": ("datasets", b"", {}, 422, "invalid_dataset"),
    "a cut model": ("models", MODEL[:-20], {}, 422, "invalid_model"),
    "cut rows": ("datasets", PARQUET_FILE[:-2], {}, 422, "invalid_dataset"),
    "a large model": ("models", MODEL + HUGE_DOC_STRING, {}, 413, "payload_too_large"),
    "as curl --data-binary says": ("models", MODEL, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    "a form for a model": ("models", form(part("model", MODEL)), MULTIPART, 415, "unsupported_media_type"),
    "JSON": ("datasets", b"{}", {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
    "no train": ("datasets", form(part("test", PARQUET_FILE)), MULTIPART, 422, "missing_part"),
    "an unknown part": ("datasets", form(part("train", PARQUET_FILE), part("dataset", PARQUET_FILE)), MULTIPART, 422, "unknown_part"),
    "a part twice": ("datasets", form(part("train", PARQUET_FILE), part("train", PARQUET_FILE)), MULTIPART, 422, "duplicate_part"),
    "a wrong second part": ("datasets", form(part("train", PARQUET_FILE), part("test", b"x,y\n" * 300)), MULTIPART, 422, "invalid_dataset"),
    "a cut form": ("datasets", form(part("train", PARQUET_FILE))[:-9], MULTIPART, 400, "invalid_multipart"),
    "no form": ("datasets", b"", MULTIPART, 400, "invalid_multipart"),
}


@pytest.mark.parametrize("case", RAW_REFUSALS)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_what_is_refused_leaves_nothing(service: LiveService, case: str, in_chunks: bool) -> None:
    kind, body, headers, status, code = RAW_REFUSALS[case]
    before = stored(service)
    content = chunked(body, 4096) if in_chunks else body
    response = service.client.post(f"/v1/{kind}", content=content, headers=headers)
    problem = assert_refused(service, response, status, code, service.left_behind())
    assert problem["suggestion"]
    assert stored(service) == before


@pytest.mark.parametrize("path", ["/v1/models", "/v1/datasets"])
def test_an_endless_body_is_refused_while_it_comes(service: LiveService, path: str) -> None:
    def endless() -> Iterator[bytes]:
        # A doc_string that goes on, and rows.
        yield MODEL + b"\x32\xff\xff\xff\x7f" if path == "/v1/models" else b"PAR1"
        while True:
            yield bytes(100_000)

    before = stored(service)
    assert_refused(service, service.client.post(path, content=endless()), 413, "payload_too_large", service.left_behind())
    assert stored(service) == before


@contextmanager
def raw_post(service: LiveService, path: str, content_length: int) -> Iterator[socket.socket]:
    """A connection on which the head of a POST has been sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {content_length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.sendall(head.encode())
        yield connection


@pytest.mark.parametrize(("path", "size"), [("/v1/models", 1_000_001), ("/v1/datasets", 4_000_001)])
def test_a_body_over_the_cap_is_refused_before_it_is_sent(service: LiveService, path: str, size: int) -> None:
    before = stored(service)
    with raw_post(service, path, size) as connection:
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert stored(service) == before


def test_a_client_that_leaves_half_way_leaves_nothing(service: LiveService) -> None:
    before = stored(service)
    with raw_post(service, "/v1/datasets", 3_500_000) as connection:
        connection.sendall(b"PAR1" + bytes(2_500_000))
        wait_until(lambda: stored(service) != before)
    wait_until(lambda: stored(service) == before)


def test_many_at_once_are_one_object(service: LiveService) -> None:
    data = with_doc_string(b"at once" * 50_000)
    before = service.left_behind()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: httpx.post(f"{service.url}/v1/models", content=data, timeout=30), range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] * 15 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(set(service.left_behind()) - set(before)) == 1
    assert content_of(service, answers[0].json()["id"], "model") == data


def test_an_object_that_has_gone_is_there_again_when_it_is_sent_again(service: LiveService) -> None:
    data = with_doc_string(b"gone")
    model = service.client.post("/v1/models", content=data).json()
    upload = uploads_of(service).get("local", model["id"])
    assert upload is not None
    service.store.delete(upload.files["model"].key)
    assert service.client.post("/v1/models", content=data).status_code == 200
    assert content_of(service, model["id"], "model") == data


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_pages_are_the_newest_first(service: LiveService, kind: str) -> None:
    bodies = [with_doc_string(b"page %d" % number) if kind == "models" else b"PAR1%8dPAR1" % number for number in range(3)]
    made = [service.client.post(f"/v1/{kind}", content=body).json()["id"] for body in bodies]
    first = service.client.get(f"/v1/{kind}", params={"limit": 2}).json()
    second = service.client.get(f"/v1/{kind}", params={"limit": 2, "after": first["next"]}).json()
    assert [upload["id"] for upload in first["data"] + second["data"]][:3] == made[::-1]
    rest, pages = second, 2
    while rest["next"] is not None and pages < 100:
        rest, pages = service.client.get(f"/v1/{kind}", params={"limit": 50, "after": rest["next"]}).json(), pages + 1
    assert rest["next"] is None
    wrong = service.client.get(f"/v1/{kind}", params={"after": made[0] + "\0"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")


def test_a_model_is_deleted_with_its_object(service: LiveService) -> None:
    before = stored(service)
    path = service.client.post("/v1/models", content=with_doc_string(b"deleted")).headers["location"]
    assert service.client.delete(path).status_code == 204
    assert stored(service) == before
    for response in (service.client.get(path), service.client.delete(path)):
        assert (response.status_code, response.json()["code"]) == (404, "upload_not_found")


@pytest.mark.parametrize(("kind", "part_name"), [("model", "model"), ("dataset", "train")])
def test_what_is_anothers_is_not_there(service: LiveService, kind: UploadKind, part_name: str) -> None:
    data = with_doc_string(b"theirs") if kind == "model" else b"PAR1theirsPAR1"
    key = f"uploads/{kind}/{part_name}"
    put_bytes(service.store, key, data)
    theirs = {part_name: UploadedFile(key=key, sha256=sha256(data), bytes=len(data))}
    upload, _ = uploads_of(service).keep("somebody", kind, theirs, service.store.exists)
    path = f"/v1/{kind}s/{upload.id}"
    assert upload.id not in service.client.get(f"/v1/{kind}s", params={"limit": 100}).text
    for response in (service.client.get(path), service.client.delete(path)):
        assert (response.status_code, response.json()["code"]) == (404, "upload_not_found")
    body = {"model_ref": f"id:{upload.id}"} if kind == "model" else {"dataset_ref": f"id:{upload.id}"}
    assert service.client.post("/v1/jobs", json={"kind": "inspect" if kind == "model" else "compress", **body}).status_code == 422
    # It is new to whoever has not sent it, and stored once; theirs outlives it.
    before = service.left_behind()
    assert service.client.post(f"/v1/{kind}s", content=data).status_code == 201
    assert service.left_behind() == before
    assert service.client.delete(path).status_code == 204
    assert service.left_behind() == before
    assert uploads_of(service).get("somebody", upload.id) == upload


@pytest.mark.parametrize("known", ["none", "model_" + "g" * 40, "dataset_" + "0" * 40, "%00", "model_" + "0" * 41])
def test_an_id_that_is_none_is_a_404(service: LiveService, known: str) -> None:
    response = service.client.get(f"/v1/models/{known}")
    assert (response.status_code, response.json()["code"]) == (404, "upload_not_found")
