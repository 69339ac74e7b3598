"""`id:` references and expected digests over real HTTP: what a job takes of an upload, and that either goes without the other."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from service.jobs.states import Status
from service.jobs.uploads.repository import UploadRepository
from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL, NPZ_FILE, PARQUET_FILE
from tests.service.api.test_submission import MULTIPART, assert_refused, form, text_part

VALIDATION, TEST = PARQUET_FILE[:4] + b"validation" + PARQUET_FILE[4:], PARQUET_FILE[:4] + b"test" + PARQUET_FILE[4:]


@pytest.fixture
def model(service: LiveService) -> str:
    known: str = service.client.post("/v1/models", params={"filename": "my.onnx"}, content=MODEL).json()["id"]
    return known


@pytest.fixture
def dataset(service: LiveService) -> str:
    files = {"train": ("d.npz", NPZ_FILE), "validation": ("v.parquet", VALIDATION), "test": ("t.parquet", TEST)}
    known: str = service.client.post("/v1/datasets", files=files).json()["id"]
    return known


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def post(service: LiveService, **body: Any) -> dict[str, Any]:
    response = service.client.post("/v1/jobs", json=body)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    return job


def inputs_of(service: LiveService, job_id: str) -> dict[str, tuple[str, bytes]]:
    """The suffix and the bytes of each input, which must lie in the job's own place."""
    job = service.jobs.get(job_id)
    assert job is not None
    found = {}
    for name, given in job.inputs.items():
        assert given.key is not None
        assert given.key.startswith(f"jobs/{job_id}/inputs/{name}.")
        found[name] = (Path(given.key).suffix, (service.settings.store_root / given.key).read_bytes())
    return found


def test_a_job_takes_the_model_and_all_parts_of_the_dataset(service: LiveService, model: str, dataset: str) -> None:
    job = post(service, model_ref=f"id:{model}", dataset_ref=f"id:{dataset}")
    assert job["inputs"]["model"] == {"filename": "my.onnx", "ref": f"id:{model}", "bytes": len(MODEL), "sha256": sha256(MODEL)}
    assert {given["ref"] for name, given in job["inputs"].items() if name != "model"} == {f"id:{dataset}"}
    assert inputs_of(service, job["id"]) == {
        "model": (".onnx", MODEL),
        "dataset": (".npz", NPZ_FILE),
        "validation": (".parquet", VALIDATION),
        "test": (".parquet", TEST),
    }
    assert service.client.get(job["links"]["self"]).json() == job


def test_parts_that_are_given_beside_go_first(service: LiveService, model: str, dataset: str) -> None:
    other = service.client.post("/v1/datasets", content=PARQUET_FILE).json()["id"]
    parts = [text_part("test_ref", f"id:{other}"), text_part("dataset_ref", f"id:{dataset}"), ("validation", ("v", NPZ_FILE))]
    response = service.client.post("/v1/jobs", content=form(text_part("model_ref", f"id:{model}"), *parts), headers=MULTIPART)
    assert response.status_code == 202
    found = inputs_of(service, response.json()["id"])
    assert {name: data for name, (_, data) in found.items()} == {
        "model": MODEL,
        "dataset": NPZ_FILE,
        "validation": NPZ_FILE,
        "test": PARQUET_FILE,
    }


def test_a_part_and_its_reference_conflict(service: LiveService, dataset: str) -> None:
    before = service.left_behind()
    parts = [("model", ("m", MODEL)), ("dataset", ("d", PARQUET_FILE)), text_part("dataset_ref", f"id:{dataset}")]
    response = service.client.post("/v1/jobs", content=form(*parts), headers=MULTIPART)
    assert_refused(service, response, 422, "conflicting_parts", before)


def test_a_job_takes_no_room_of_its_own(service: LiveService, model: str) -> None:
    job = service.jobs.get(post(service, kind="inspect", model_ref=f"id:{model}")["id"])
    upload = UploadRepository(service.jobs.engine).get("local", model)
    assert job is not None
    assert upload is not None
    paths = [service.settings.store_root / str(key) for key in (job.inputs["model"].key, upload.files["model"].key)]
    assert paths[0].samefile(paths[1])


def test_job_and_upload_go_without_each_other(service: LiveService, model: str, dataset: str) -> None:
    first, second = (post(service, model_ref=f"id:{model}", dataset_ref=f"id:{dataset}") for _ in range(2))
    service.client.post(first["links"]["cancel"])
    assert service.client.delete(first["links"]["self"]).status_code == 204
    assert service.client.get(f"/v1/models/{model}").status_code == 200
    for path in (f"/v1/models/{model}", f"/v1/datasets/{dataset}"):
        assert service.client.delete(path).status_code == 204
    content = inputs_of(service, second["id"])
    assert content["model"] == (".onnx", MODEL)
    # A retry too has copies of its own, and says what they are.
    service.client.post(second["links"]["cancel"])
    again = service.client.post(second["links"]["retry"]).json()
    assert again["inputs"] == second["inputs"]
    assert service.client.delete(second["links"]["self"]).status_code == 204
    assert inputs_of(service, again["id"]) == content


def test_using_an_upload_keeps_it_for_longer_and_looking_does_not(service: LiveService, model: str) -> None:
    path = f"/v1/models/{model}"
    before = service.client.get(path).json()
    assert service.client.get(path).json() == before
    post(service, kind="inspect", model_ref=f"id:{model}")
    after = service.client.get(path).json()
    assert after["expires_at"] > before["expires_at"]
    assert after | {"expires_at": ""} == before | {"expires_at": ""}


NONE = "0" * 40
WRONG: dict[str, tuple[dict[str, str], str, str]] = {
    "no such model": ({"model_ref": f"id:model_{NONE}"}, "invalid_model_ref", "model_ref"),
    "no such dataset": ({"dataset_ref": f"id:dataset_{NONE}"}, "invalid_dataset_ref", "dataset_ref"),
    "no such test rows": ({"test_ref": f"id:dataset_{NONE}"}, "invalid_dataset_ref", "test_ref"),
    "nothing": ({"model_ref": "id:"}, "invalid_model_ref", "model_ref"),
    "a path": ({"model_ref": "id:../../etc/passwd"}, "invalid_model_ref", "model_ref"),
    "a NUL": ({"model_ref": "id:\0"}, "invalid_model_ref", "model_ref"),
    "a dataset as a model": ({"model_ref": "id:{dataset}"}, "invalid_model_ref", "model_ref"),
    "a model as rows": ({"validation_ref": "id:{model}"}, "invalid_dataset_ref", "validation_ref"),
    "no digest": ({"model_ref": "id:{model}#sha256=abc"}, "invalid_model_ref", "model_ref"),
    "another model": ({"model_ref": f"id:{{model}}#sha256={'0' * 64}"}, "digest_mismatch", "model_ref"),
    "other rows": ({"test_ref": f"id:{{dataset}}#sha256={'0' * 64}"}, "digest_mismatch", "test_ref"),
    "the digest of no file": ({"dataset_ref": f"builtin:digits#sha256={'0' * 64}"}, "invalid_dataset_ref", "dataset_ref"),
    "a digest in a path": ({"model_ref": "file:/x.onnx#sha256=0"}, "invalid_model_ref", "model_ref"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_reference_is_refused_and_leaves_nothing(service: LiveService, model: str, dataset: str, case: str) -> None:
    changes, code, param = WRONG[case]
    before = service.left_behind()
    body = {"model_ref": "id:{model}", "dataset_ref": "builtin:digits", **changes}
    filled = {name: text.format(model=model, dataset=dataset) for name, text in body.items()}
    problem = assert_refused(service, service.client.post("/v1/jobs", json=filled), 422, code, before)
    assert problem["param"] == param
    assert problem["suggestion"]
    only_checked = service.client.post("/v1/jobs", params={"validate_only": True}, json=filled)
    assert_refused(service, only_checked, 422, code, before)


def test_an_upload_whose_file_has_gone_is_refused(service: LiveService) -> None:
    data = MODEL + b"\x32\x04gone"
    model = service.client.post("/v1/models", content=data).json()["id"]
    upload = UploadRepository(service.jobs.engine).get("local", model)
    assert upload is not None
    service.store.delete(upload.files["model"].key)
    before = service.left_behind()
    response = service.client.post("/v1/jobs", json={"kind": "inspect", "model_ref": f"id:{model}"})
    assert_refused(service, response, 422, "invalid_model_ref", before)


def test_a_checked_request_leaves_nothing(service: LiveService, model: str, dataset: str) -> None:
    before = service.left_behind()
    body = {"model_ref": f"id:{model}", "dataset_ref": f"id:{dataset}"}
    checked = service.client.post("/v1/jobs", params={"validate_only": True}, json=body)
    assert (checked.status_code, checked.json()["inputs"]["test"]["sha256"]) == (200, sha256(TEST))
    assert service.left_behind() == before


def test_a_right_digest_is_taken_of_every_scheme(service: LiveService, data_root: Path, model: str, dataset: str) -> None:
    (data_root / "train.parquet").write_bytes(PARQUET_FILE)
    file_ref = f"file:{data_root}/train.parquet"
    job = post(service, model_ref=f"id:{model}#sha256={sha256(MODEL)}", dataset_ref=f"{file_ref}#sha256={sha256(PARQUET_FILE).upper()}")
    assert (job["inputs"]["model"]["ref"], job["inputs"]["dataset"]["ref"]) == (f"id:{model}", file_ref)
    assert job["inputs"]["dataset"]["sha256"] == sha256(PARQUET_FILE)
    assert post(service, model_ref=f"id:{model}", dataset_ref=f"id:{dataset}#sha256={sha256(NPZ_FILE)}")["status"] == "queued"


def test_requests_are_compared_by_what_the_references_lead_to(service: LiveService, data_root: Path, model: str) -> None:
    (data_root / "rows.npz").write_bytes(NPZ_FILE)
    rows = service.client.post("/v1/datasets", content=NPZ_FILE).json()["id"]
    headers = {"Idempotency-Key": "by-content"}
    files = {"model": ("m", MODEL), "dataset": ("d", NPZ_FILE)}
    first = service.client.post("/v1/jobs", files=files, headers=headers).json()
    before = service.left_behind()
    named = service.client.post("/v1/jobs", json={"model_ref": f"id:{model}", "dataset_ref": f"id:{rows}"}, headers=headers)
    assert (named.status_code, named.json()) == (202, first)
    reference = f"file:{data_root}/rows.npz"
    for dataset_ref in ("builtin:digits", reference, f"{reference}#sha256={sha256(NPZ_FILE)}"):
        other = service.client.post("/v1/jobs", json={"model_ref": f"id:{model}", "dataset_ref": dataset_ref}, headers=headers)
        assert other.json()["code"] == "idempotency_key_reused"
    assert service.left_behind() == before


def test_a_selection_shows_where_its_model_is_from(service: LiveService, model: str) -> None:
    queued = service.jobs.get(post(service, model_ref=f"id:{model}", dataset_ref="builtin:digits")["id"])
    assert queued is not None
    finished = service.insert_finished(Status.SUCCEEDED, {"curve.safetensors": b"points"})
    parent = finished.model_copy(update={"id": f"{finished.id}x", "inputs": queued.inputs})
    service.jobs.insert(parent)
    selected = post(service, kind="select", parent_id=parent.id, config={"point": 1})
    assert selected["inputs"]["model"]["ref"] == f"id:{model}"
