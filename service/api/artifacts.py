"""/v1/jobs/{job_id}/artifacts: the finished files of a job."""

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.dependencies import FinishedJobDep, ServicesDep
from service.api.download import to_file_response
from service.api.problems import ArtifactNotFound, document
from service.api.schemas import ArtifactList, to_artifact_list

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])

_BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file. Its ETag is the sha256 in quotes.", **_BINARY},
    206: {"description": "The range that was asked for.", **_BINARY},
    304: {"description": "The file is the one that If-None-Match names."},
    **document(404, 409, 416, 422),
}


@router.get("", operation_id="list_artifacts", responses=document(404, 409, 422))
def list_artifacts(job: FinishedJobDep) -> ArtifactList:
    """The finished files of a job, with sizes and checksums. A job that failed has none."""
    return to_artifact_list(job)


@router.head("/{name}", include_in_schema=False)
@router.get("/{name}", operation_id="download_artifact", responses=FILE_RESPONSES, response_class=Response)
def download(request: Request, job: FinishedJobDep, services: ServicesDep, name: str) -> Response:
    """One file, whole or a range of it."""
    for artifact in job.artifacts:
        if artifact.name == name:
            return to_file_response(request, services.store, artifact, "attachment")
    names = ", ".join(artifact.name for artifact in job.artifacts) or "none"
    raise ArtifactNotFound(
        f"The job is {job.status.value} and has no artifact {name[:80]!r}.", param="name", suggestion=f"It has: {names}."
    )
