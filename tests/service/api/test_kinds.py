"""The part `kind`: an inspection takes a model and no rows, a selection the id of a finished job; each has a report of its own."""

from typing import Any

import httpx
import pytest

from service.jobs.job import Job
from service.jobs.states import Status
from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL, PARQUET_FILE

Parts = list[tuple[str, tuple[str | None, bytes]]]

MODEL_PART: Parts = [("model", ("m.onnx", MODEL))]
ROWS: Parts = [("dataset", ("d.parquet", PARQUET_FILE))]
INSPECT: Parts = [("kind", (None, b"inspect"))]


def post(service: LiveService, path: str, parts: Parts) -> httpx.Response:
    return service.client.post(path, files=parts)


@pytest.mark.parametrize("path", ["/compress", "/v1/jobs"])
@pytest.mark.parametrize("order", [1, -1])
def test_an_inspection_is_queued_without_rows(service: LiveService, path: str, order: int) -> None:
    parts = [*INSPECT, *MODEL_PART, ("config", (None, b'{"output": "y"}'))]
    response = post(service, path, parts[::order])
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["kind"], job["status"], job["config"]["output"], list(job["inputs"])) == ("inspect", "queued", "y", ["model"])
    stored = service.jobs.get(job["id"])
    assert stored is not None
    assert stored.kind == "inspect"


def test_compress_is_the_kind_where_none_is_given(service: LiveService) -> None:
    for parts in ([], [("kind", (None, b"compress"))]):
        assert post(service, "/v1/jobs", [*MODEL_PART, *ROWS, *parts]).json()["kind"] == "compress"


REFUSALS: dict[str, tuple[Parts, str, str]] = {
    "no model": (INSPECT, "missing_part", "model"),
    "another kind": ([*MODEL_PART, ("kind", (None, b"prune"))], "invalid_kind", "kind"),
    "no kind": ([*MODEL_PART, ("kind", (None, b""))], "invalid_kind", "kind"),
    "kind twice": ([*INSPECT, *MODEL_PART, *INSPECT], "duplicate_part", "kind"),
    "kind and then rows": ([*MODEL_PART, *INSPECT, *ROWS], "unexpected_part", "dataset"),
    "rows and then kind": ([*MODEL_PART, *ROWS, *INSPECT], "unexpected_part", "dataset"),
    **{
        name: ([*INSPECT, *MODEL_PART, (name, (None, b"builtin:digits"))], "unexpected_part", name)
        for name in ("validation", "test", "dataset_ref", "validation_ref", "test_ref")
    },
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_an_inspection_does_not_take_is_named_and_nothing_stays(service: LiveService, case: str) -> None:
    parts, code, param = REFUSALS[case]
    before = service.left_behind()
    response = post(service, "/v1/jobs", parts)
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"], problem["param"]) == (422, code, param)
    assert problem["suggestion"]
    assert service.left_behind() == before


def selection(parent_id: str, config: bytes = b'{"point": 1}') -> Parts:
    return [("kind", (None, b"select")), ("parent_id", (None, parent_id.encode())), ("config", (None, config))]


def finished(service: LiveService, status: Status = Status.SUCCEEDED) -> Job:
    return service.insert_finished(status, {"model.onnx": b"small", "curve.safetensors": b"points", "report.json": b"{}"})


def stored(service: LiveService) -> list[str]:
    return [name for name in service.left_behind() if not name.startswith("job_")]


@pytest.mark.parametrize("path", ["/compress", "/v1/jobs"])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED_GATE])
def test_a_selection_takes_the_model_and_the_curve_of_its_parent(service: LiveService, path: str, order: int, status: Status) -> None:
    parent = finished(service, status)
    before = stored(service)
    response = post(service, path, selection(parent.id)[::order])
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["kind"], job["parent_id"], job["status"], job["config"]["point"]) == ("select", parent.id, "queued", 1)
    row = service.jobs.get(job["id"])
    assert row is not None
    assert row.parent_id == parent.id
    curve = next(artifact for artifact in parent.artifacts if artifact.name == "curve.safetensors")
    keys = {name: (given.key, given.sha256) for name, given in row.inputs.items()}
    assert keys == {"model": (parent.inputs["model"].key, None), "curve": (curve.key, curve.sha256)}
    # Nothing was copied, and what ends without a result takes nothing of its parent's with it.
    service.client.post(job["links"]["cancel"])
    assert stored(service) == before
    assert service.client.get(f"/v1/jobs/{parent.id}").json()["parent_id"] is None


def assert_select_refused(service: LiveService, parts: Parts, status: int, code: str, param: str) -> None:
    before = service.left_behind()
    response = post(service, "/v1/jobs", parts)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["param"]) == (status, code, param)
    assert problem["suggestion"]
    assert service.left_behind() == before


@pytest.mark.parametrize("parent_id", ["job_none", "", "a\0b", "a" * 1000])
def test_a_parent_that_is_not_there_is_named(service: LiveService, parent_id: str) -> None:
    assert_select_refused(service, selection(parent_id), 422, "parent_not_found", "parent_id")


def test_a_parent_without_a_curve_is_no_parent(service: LiveService) -> None:
    queued = post(service, "/v1/jobs", [*MODEL_PART, *ROWS]).json()
    assert_select_refused(service, selection(queued["id"]), 409, "job_not_finished", "parent_id")
    inspected = service.insert_finished(Status.SUCCEEDED, {"inspection.json": b"{}"}, kind="inspect")
    failed = service.insert_finished(Status.FAILED, {})
    for parent in (inspected, failed):
        assert_select_refused(service, selection(parent.id), 404, "artifact_not_found", "parent_id")


def test_what_a_selection_does_not_take_is_named_and_nothing_stays(service: LiveService) -> None:
    parent = finished(service)
    kind, parent_part, config = selection(parent.id)
    for parts, code, param in (
        ([kind, config], "missing_part", "parent_id"),
        ([kind, parent_part], "invalid_config", "point"),
        (selection(parent.id, b'{"point": 1, "target_ratio": 4}'), "invalid_config", "target_ratio"),
        (selection(parent.id, b'{"point": -1}'), "invalid_config", "point"),
        ([*MODEL_PART, *selection(parent.id)], "unexpected_part", "model"),
        ([*selection(parent.id), *ROWS], "unexpected_part", "dataset"),
        ([*MODEL_PART, *ROWS, parent_part], "unexpected_part", "parent_id"),
        ([*INSPECT, *MODEL_PART, parent_part], "unexpected_part", "parent_id"),
        ([*MODEL_PART, *ROWS, config], "invalid_config", "point"),
    ):
        assert_select_refused(service, parts, 422, code, param)


def test_the_report_of_a_selection_is_its_artifact(service: LiveService) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {"model.onnx": b"small", "selection.json": b"{}"}, kind="select")
    response = service.client.get(f"/v1/jobs/{job.id}/report")
    assert (response.status_code, response.content) == (200, b"{}")


def test_the_report_of_an_inspection_is_its_artifact(service: LiveService) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {"inspection.json": b'{"format_version": 1}'}, kind="inspect")
    response = service.client.get(f"/v1/jobs/{job.id}/report")
    assert (response.status_code, response.content) == (200, b'{"format_version": 1}')
    assert response.headers["content-disposition"] == 'inline; filename="inspection.json"'
    other = service.insert_finished(Status.SUCCEEDED, {"report.json": b"{}"}, kind="inspect")
    assert service.client.get(f"/v1/jobs/{other.id}/report").json()["code"] == "artifact_not_found"


def test_the_description_has_all_kinds_and_reports(service: LiveService) -> None:
    described = service.client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert schemas["JobForm"]["properties"]["kind"]["default"] == "compress"
    for schema in ("JobForm", "JobView"):
        assert schemas[schema]["properties"]["kind"]["$ref"] == "#/components/schemas/Kind"
    assert schemas["Kind"]["enum"] == ["compress", "inspect", "select"]
    report = described["paths"]["/v1/jobs/{job_id}/report"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    names = ("Inspection", "Report", "Selection")
    assert sorted(option["$ref"] for option in report["anyOf"]) == [f"#/components/schemas/{name}" for name in names]
    # A name that two reports gave to a part of theirs would have the package before it.
    assert [name for name in schemas if "__" in name] == []
