"""/v1/jobs: create, list, get, cancel, delete."""

import asyncio
import re
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from compressor.protocol import Kind
from service.api.caller import CallerDep
from service.api.compress import REQUEST_BODY, RESPONSES
from service.api.creation import CreationOptionsDep, create_job
from service.api.dependencies import FinishedJobDep, JobDep, ServicesDep, get_job
from service.api.prefer import MAX_WAIT_S, preferred_wait_s
from service.api.problems import InvalidRequest, JobAlreadyFinished, JobInUse, document
from service.api.schemas import JobList, JobView, to_job_view
from service.api.uploads.metadata import KEY, METADATA, RULE
from service.jobs.repository import JobFilter
from service.jobs.states import TERMINAL, Status
from service.storage.keys import job_prefix
from service.storage.retention import discard_attempts

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_METADATA_PARAMETER = {
    "name": METADATA,
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "Jobs with all of these pairs: `metadata[project]=demo`.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
_FILTER = re.compile(rf"{METADATA}\[(.*)\]", re.DOTALL)


@router.post("", operation_id="create_job", status_code=202, responses=RESPONSES, response_model=JobView, openapi_extra=REQUEST_BODY)
async def create(request: Request, services: ServicesDep, options: CreationOptionsDep, caller: CallerDep) -> Response:
    """Takes what the kind needs, a model and a dataset where it is compress, and queues the job."""
    return await create_job(request, services, options, caller)


@router.get("", operation_id="list_jobs", responses=document(422), openapi_extra={"parameters": [_METADATA_PARAMETER]})
def list_jobs(
    request: Request,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
    after: Annotated[str | None, Query(max_length=200, description="The `next` of the page before.")] = None,
    status: Annotated[list[Status] | None, Query(description="Jobs in one of these states; repeatable.")] = None,
    kind: Annotated[Kind | None, Query(description="Jobs of this kind.")] = None,
) -> JobList:
    """The jobs, the newest first; where filters are given, those that pass all of them."""
    wanted = JobFilter(status or (), kind, _read_metadata_filter(request))
    jobs = services.jobs.list_recent(limit + 1, after, wanted)
    page = jobs[:limit]
    return JobList(data=[to_job_view(job) for job in page], next=page[-1].id if len(jobs) > limit else None)


def _read_metadata_filter(request: Request) -> dict[str, str]:
    pairs = {}
    for name, value in request.query_params.multi_items():
        if name == METADATA or name.startswith(f"{METADATA}["):
            match = _FILTER.fullmatch(name)
            if match is None or not KEY.fullmatch(match[1]) or not value.isprintable():
                detail = f"{name[:80]!a} asks for metadata that no job can have."
                raise InvalidRequest(detail, param=name[:80], suggestion=f"For example metadata[project]=demo. {RULE}")
            pairs[match[1]] = value
    return pairs


@router.get(
    "/{job_id}",
    operation_id="get_job",
    responses={
        200: {"headers": {"Preference-Applied": {"description": "wait=N where Prefer asked for it.", "schema": {"type": "string"}}}},
        **document(404, 422),
    },
)
async def get(
    job: JobDep,
    services: ServicesDep,
    response: Response,
    wait: Annotated[int | None, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the job to finish.")] = None,
    prefer: Annotated[list[str] | None, Header(description="`wait=N` does what the parameter does; the parameter goes first.")] = None,
) -> JobView:
    """The job as it stands; 200 also where it has failed. With `wait` the answer comes when it has finished, or the time has passed."""
    preferred = preferred_wait_s(prefer)
    if wait is None and preferred is not None:
        wait = preferred
        response.headers["Preference-Applied"] = f"wait={wait}"
    if wait and not job.finished:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await services.watcher.wait_for(job.id, lambda mark: mark.status in TERMINAL)
        job = await run_in_threadpool(get_job, services, job.id)
    return to_job_view(job)


@router.delete("/{job_id}", status_code=204, operation_id="delete_job", responses=document(403, 404, 409, 422))
def delete(job: FinishedJobDep, services: ServicesDep) -> None:
    """Removes a finished job and all of its files. What was selected from it keeps its own."""
    if services.jobs.has_unfinished_selections(job.id):
        detail = "A selection that has not finished reads the files of this job."
        raise JobInUse(detail, param="job_id", suggestion="Wait for it, or cancel it.", headers={"Retry-After": "2"})
    # The row goes last: where the service is stopped in between, deleting again removes the rest.
    services.store.delete_prefix(job_prefix(job.id))
    services.jobs.delete(job.id)


@router.post("/{job_id}/cancel", status_code=202, operation_id="cancel_job", responses=document(403, 404, 409, 422))
def cancel(job: JobDep, services: ServicesDep) -> JobView:
    """Ends a waiting job at once and a running one within seconds. Cancelling again changes nothing."""
    cancelled = services.jobs.request_cancel(job.id) or job
    if cancelled.status == Status.CANCELLED:
        # Cancelled while it waited, no runner will clear up after it.
        discard_attempts(job.id, services.store)
    elif cancelled.finished:
        raise JobAlreadyFinished(
            f"The job is {cancelled.status.value}; it cannot be cancelled.", param="job_id", suggestion="Leave it as it is."
        )
    return to_job_view(cancelled)
