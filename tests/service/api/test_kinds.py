"""The part `kind`: an inspection takes a model and no rows, and its report is inspection.json."""

from typing import Any

import httpx
import pytest

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


def test_the_report_of_an_inspection_is_its_artifact(service: LiveService) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {"inspection.json": b'{"format_version": 1}'}, kind="inspect")
    response = service.client.get(f"/v1/jobs/{job.id}/report")
    assert (response.status_code, response.content) == (200, b'{"format_version": 1}')
    assert response.headers["content-disposition"] == 'inline; filename="inspection.json"'
    other = service.insert_finished(Status.SUCCEEDED, {"report.json": b"{}"}, kind="inspect")
    assert service.client.get(f"/v1/jobs/{other.id}/report").json()["code"] == "artifact_not_found"


def test_the_description_has_both_kinds_and_both_reports(service: LiveService) -> None:
    described = service.client.get("/openapi.json").json()
    for path in ("/compress", "/v1/jobs"):
        form = described["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        assert (form["kind"]["enum"], form["kind"]["default"]) == (["compress", "inspect"], "compress")
    schemas = described["components"]["schemas"]
    assert schemas["JobView"]["properties"]["kind"]["enum"] == ["compress", "inspect"]
    report = described["paths"]["/v1/jobs/{job_id}/report"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert sorted(option["$ref"] for option in report["anyOf"]) == ["#/components/schemas/Inspection", "#/components/schemas/Report"]
    # A name that both reports gave to a part of theirs would have the package before it.
    assert [name for name in schemas if "__" in name] == []
