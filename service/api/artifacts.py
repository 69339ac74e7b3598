"""/v1/jobs/{job_id}/artifacts: the finished files of a job, one by one or as one archive."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from service.api.archive import archive_etag, stream_archive
from service.api.conditions import check_conditions, validation_headers
from service.api.dependencies import FinishedJobDep, ServicesDep
from service.api.download import BINARY, check_present, to_file_response
from service.api.problems import ArtifactNotFound, document
from service.api.schemas import ArtifactList, to_artifact_list

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["artifacts"])

FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file. Its ETag is the sha256 in quotes, which Repr-Digest repeats in base64.",
        "content": {"application/octet-stream": BINARY},
    },
    206: {
        "description": "The range that was asked for. Of several ranges none is taken, and the answer is 200 with the whole file.",
        "content": {"application/octet-stream": BINARY},
    },
    304: {"description": "The file is the one that If-None-Match names."},
    **document(404, 409, 412, 416, 422),
}
ARCHIVE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A ZIP archive, the same bytes each time; it cannot be had in ranges.", "content": {"application/zip": BINARY}},
    304: {"description": "The archive is the one that If-None-Match names."},
    **document(404, 409, 412, 422),
}


@router.get("/artifacts", operation_id="list_artifacts", responses=document(404, 409, 422))
def list_artifacts(job: FinishedJobDep) -> ArtifactList:
    """The finished files of a job, with sizes and checksums. A job that failed has none."""
    return to_artifact_list(job)


@router.head("/artifacts/{name}", include_in_schema=False)
@router.get("/artifacts/{name}", operation_id="download_artifact", responses=FILE_RESPONSES, response_class=Response)
def download(request: Request, job: FinishedJobDep, services: ServicesDep, name: str) -> Response:
    """One file, whole or a range of it."""
    for artifact in job.artifacts:
        if artifact.name == name:
            return to_file_response(request, services.store, artifact, "attachment")
    names = ", ".join(artifact.name for artifact in job.artifacts) or "none"
    raise ArtifactNotFound(
        f"The job is {job.status.value} and has no artifact {name[:80]!r}.", param="name", suggestion=f"It has: {names}."
    )


@router.head("/artifacts.zip", include_in_schema=False)
@router.get("/artifacts.zip", operation_id="download_artifacts", responses=ARCHIVE_RESPONSES, response_class=Response)
def download_all(request: Request, job: FinishedJobDep, services: ServicesDep) -> Response:
    """All files of a job as one ZIP archive, not compressed once more."""
    if not job.artifacts:
        raise ArtifactNotFound(
            f"The job is {job.status.value} and has no artifacts.", param="job_id", suggestion="The job's `error` says why."
        )
    etag = archive_etag(job.artifacts)
    unchanged = check_conditions(request, etag)
    if unchanged is not None:
        return unchanged
    for artifact in job.artifacts:
        check_present(services.store, artifact)
    headers = {
        **validation_headers(etag),
        "Accept-Ranges": "none",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'attachment; filename="{job.id}.zip"',
    }
    content = stream_archive(services.store, job.artifacts) if request.method == "GET" else ()
    return StreamingResponse(content, 200, headers, "application/zip")
