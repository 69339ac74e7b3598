"""/v1/jobs/{job_id}/report: what the run, the inspection or the selection found."""

from typing import Any

from fastapi import APIRouter, Request, Response

from compressor.inspection import Inspection
from compressor.protocol import INSPECTION, SELECTION, Kind
from compressor.report import Report, Selection
from service.api.dependencies import FinishedJobDep, ServicesDep
from service.api.download import BINARY, to_file_response
from service.api.problems import ArtifactNotFound, document

router = APIRouter(prefix="/v1/jobs/{job_id}/report", tags=["artifacts"])

REPORTS: dict[Kind, str] = {"compress": "report.json", "inspect": INSPECTION, "select": SELECTION}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Report | Inspection | Selection},
    206: {"description": "The range that was asked for.", "content": {"application/json": BINARY}},
    304: {"description": "The report is the one that If-None-Match names."},
    **document(404, 409, 412, 416, 422),
}


@router.head("", include_in_schema=False)
@router.get("", operation_id="get_report", responses=RESPONSES, response_class=Response)
def get_report(request: Request, job: FinishedJobDep, services: ServicesDep) -> Response:
    """The artifact report.json, byte for byte; inspection.json or selection.json where the job is of kind inspect or select."""
    for artifact in job.artifacts:
        if artifact.name == REPORTS[job.kind]:
            return to_file_response(request, services.store, artifact, "inline")
    raise ArtifactNotFound(f"The job is {job.status.value} and has no report.", param="job_id", suggestion="The job's `error` says why.")
