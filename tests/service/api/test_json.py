"""Creating jobs with a JSON body, models by reference, and requests that are only checked."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.jobs.states import Status
from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL, NPZ_FILE, PARQUET_FILE
from tests.service.api.test_submission import DATA_PART, MODEL_PART, MULTIPART, REF_PART, REFUSALS, Part, form, text_part


@pytest.fixture(scope="module")
def refs(data_root: Path) -> dict[str, str]:
    (data_root / "model.onnx").write_bytes(MODEL)
    (data_root / "train.parquet").write_bytes(PARQUET_FILE)
    (data_root / "rows.npz").write_bytes(NPZ_FILE)
    (data_root / "model.pb").write_bytes(MODEL)
    (data_root / "cut.onnx").write_bytes(MODEL[:-20])
    (data_root / "large.onnx").write_bytes(MODEL + b"\x32\x80\x89\x7a" + bytes(2_000_000))
    return {"model_ref": f"file:{data_root}/model.onnx", "dataset_ref": f"file:{data_root}/train.parquet"}


@pytest.mark.parametrize("path", ["/compress", "/v1/jobs"])
def test_a_job_is_made_of_references(service: LiveService, data_root: Path, refs: dict[str, str], path: str) -> None:
    body = refs | {"test_ref": f"file:{data_root}/rows.npz", "config": {"seed": 7}, "metadata": {"a": "b"}, "parent_id": None}
    response = service.client.post(path, json=body)
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == job["links"]["self"]
    assert (job["kind"], job["config"]["seed"], job["metadata"]) == ("compress", 7, {"a": "b"})
    assert {name: given["ref"] for name, given in job["inputs"].items()} == {
        "model": refs["model_ref"],
        "dataset": refs["dataset_ref"],
        "test": body["test_ref"],
    }
    assert job["inputs"]["model"]["bytes"] == len(MODEL)
    as_form = service.client.post(path, content=form(text_part("model_ref", refs["model_ref"]), REF_PART), headers=MULTIPART)
    assert as_form.json()["inputs"]["model"] == job["inputs"]["model"]


def test_the_same_request_as_json_and_as_a_form_is_one(service: LiveService, refs: dict[str, str]) -> None:
    headers = {"Idempotency-Key": "json-and-form"}
    first = service.client.post("/v1/jobs", json=refs | {"config": {"seed": 7}}, headers=headers)
    parts = [text_part(name, ref) for name, ref in refs.items()]
    again = service.client.post("/v1/jobs", content=form(*parts, text_part("config", '{"seed":7}')), headers=headers | MULTIPART)
    assert (first.status_code, again.json()) == (202, first.json())


def test_an_inspection_and_a_selection(service: LiveService, refs: dict[str, str]) -> None:
    inspected = service.client.post("/v1/jobs", json={"kind": "inspect", "model_ref": refs["model_ref"]})
    assert (inspected.status_code, inspected.json()["kind"]) == (202, "inspect")
    parent = service.insert_finished(Status.SUCCEEDED, {"curve.safetensors": b"points"})
    selected = service.client.post("/v1/jobs", json={"kind": "select", "parent_id": parent.id, "config": {"point": 1}})
    assert (selected.status_code, selected.json()["parent_id"]) == (202, parent.id)


WRONG: dict[str, tuple[Any, int, str, str]] = {
    "no JSON": (b"{", 400, "invalid_json", "body"),
    "nothing": (b"", 400, "invalid_json", "body"),
    "no object": (b"[]", 400, "invalid_json", "body"),
    "deep": (b"[" * 100_000, 400, "invalid_json", "body"),
    "no text": (b'{"a": "\xff"}', 400, "invalid_json", "body"),
    "large": (b" " * 300_000, 413, "payload_too_large", "body"),
    "empty": ({}, 422, "missing_part", "model"),
    "a model inside": ({"model": "x"}, 422, "unknown_part", "model"),
    "an unknown member": ({"models": "x"}, 422, "unknown_part", "models"),
    "a number as reference": ({"model_ref": 1}, 422, "invalid_request", "model_ref"),
    "half a character": (b'{"model_ref": "\\ud800"}', 422, "invalid_request", "model_ref"),
    "a config as text": ({"config": "{}"}, 422, "invalid_config", "config"),
    "an unknown option": ({"config": {"sparsity": 1}}, 422, "invalid_config", "sparsity"),
    "not a number": (b'{"config": {"beta": NaN}}', 422, "invalid_config", "beta"),
    "metadata of numbers": ({"metadata": {"a": 1}}, 422, "invalid_metadata", "metadata.a"),
    "another kind": ({"kind": "prune"}, 422, "invalid_kind", "kind"),
    "a selection with a model": ({"kind": "select", "model_ref": "file:{root}/model.onnx"}, 422, "unexpected_part", "model_ref"),
    "a builtin model": ({"model_ref": "builtin:digits"}, 422, "invalid_model_ref", "model_ref"),
    "another scheme": ({"model_ref": "ftp://a/b"}, 422, "invalid_model_ref", "model_ref"),
    "a scheme that is off": ({"model_ref": "https://example.org/model.onnx"}, 422, "model_ref_not_allowed", "model_ref"),
    "no such model": ({"model_ref": "file:{root}/none.onnx"}, 422, "invalid_model_ref", "model_ref"),
    "a folder": ({"model_ref": "file:{root}"}, 422, "invalid_model_ref", "model_ref"),
    "another ending": ({"model_ref": "file:{root}/model.pb"}, 422, "invalid_model_ref", "model_ref"),
    "a truncated model": ({"model_ref": "file:{root}/cut.onnx"}, 422, "invalid_model", "model_ref"),
    "rows as model": ({"model_ref": "file:{root}/train.parquet"}, 422, "invalid_model", "model_ref"),
    "a large model": ({"model_ref": "file:{root}/large.onnx"}, 413, "payload_too_large", "model_ref"),
    "outside": ({"model_ref": "file:/etc/passwd"}, 422, "model_ref_not_allowed", "model_ref"),
    "a model as rows": ({"dataset_ref": "file:{root}/model.onnx"}, 422, "invalid_dataset", "dataset_ref"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("query", ["", "?validate_only=true"])
def test_a_refused_body_names_its_member_and_leaves_nothing(
    service: LiveService, data_root: Path, refs: dict[str, str], case: str, query: str
) -> None:
    assert refs
    body, status, code, param = WRONG[case]
    content = body if isinstance(body, bytes) else json.dumps(body).replace("{root}", str(data_root)).encode()
    before = service.left_behind()
    response = service.client.post(f"/v1/jobs{query}", content=content, headers={"Content-Type": "application/json; charset=utf-8"})
    problem = response.json()
    assert (response.status_code, problem["code"], problem["param"]) == (status, code, param), problem
    assert problem["suggestion"]
    assert service.left_behind() == before


def test_a_model_and_its_reference_conflict(service: LiveService, refs: dict[str, str]) -> None:
    for parts in ((MODEL_PART, text_part("model_ref", refs["model_ref"])), (text_part("model_ref", refs["model_ref"]), MODEL_PART)):
        response = service.client.post("/v1/jobs", content=form(*parts, REF_PART), headers=MULTIPART)
        assert (response.status_code, response.json()["code"]) == (422, "conflicting_parts")


def test_what_is_only_checked_is_answered_and_not_kept(service: LiveService, refs: dict[str, str]) -> None:
    before = service.left_behind()
    for body in (
        {"json": refs | {"config": {"seed": 7}}},
        {"content": form(MODEL_PART, DATA_PART, text_part("config", '{"seed": 7}')), "headers": MULTIPART},
    ):
        response = service.client.post("/v1/jobs?validate_only=true", **body)
        assert response.status_code == 200, response.text
        checked = response.json()
        assert set(checked) == {"kind", "parent_id", "metadata", "config", "inputs"}
        assert (checked["kind"], checked["config"]["seed"], set(checked["inputs"])) == ("compress", 7, {"model", "dataset"})
        assert "location" not in response.headers
    assert service.left_behind() == before


@pytest.mark.parametrize("case", REFUSALS)
def test_a_check_refuses_what_creating_refuses(service: LiveService, case: str) -> None:
    parts: list[Part] = REFUSALS[case][0]
    before = service.left_behind()
    response = service.client.post("/compress?validate_only=1", content=form(*parts), headers=MULTIPART)
    assert (response.status_code, response.json()["code"]) == REFUSALS[case][1:3]
    assert service.left_behind() == before


def test_a_check_looks_for_the_parent_and_keeps_no_key(service: LiveService) -> None:
    body = {"kind": "select", "parent_id": "job_none", "config": {"point": 1}}
    assert service.client.post("/v1/jobs?validate_only=true", json=body).json()["code"] == "parent_not_found"
    headers = {"Idempotency-Key": "only-checked"}
    inspect = {"model": ("m.onnx", MODEL), "kind": (None, "inspect")}
    assert service.client.post("/v1/jobs?validate_only=true", files=inspect, headers=headers).status_code == 200
    assert service.client.post("/v1/jobs", files=inspect, headers=headers).status_code == 202
