"""/v1/jobs: create, list, get, cancel."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.compress import REQUEST_BODY, RESPONSES, create_job
from service.api.dependencies import JobDep, ServicesDep
from service.api.problems import JobAlreadyFinished, document
from service.api.schemas import JobList, JobView, to_job_view
from service.jobs.states import Status
from service.storage.keys import job_prefix

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("", status_code=202, operation_id="create_job", responses=RESPONSES, openapi_extra=REQUEST_BODY)
async def create(request: Request, response: Response, services: ServicesDep) -> JobView:
    """Takes what the kind needs, a model and a dataset where it is compress, and queues the job."""
    return to_job_view(await create_job(request, response, services))


@router.get("", operation_id="list_jobs", responses=document(422))
def list_jobs(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
    after: Annotated[str | None, Query(max_length=200, description="The `next` of the page before.")] = None,
) -> JobList:
    """The jobs, the newest first."""
    jobs = services.jobs.list_recent(limit + 1, after)
    page = jobs[:limit]
    return JobList(data=[to_job_view(job) for job in page], next=page[-1].id if len(jobs) > limit else None)


@router.get("/{job_id}", operation_id="get_job", responses=document(404, 422))
def get(job: JobDep) -> JobView:
    """The job as it stands; 200 also where it has failed."""
    return to_job_view(job)


@router.post("/{job_id}/cancel", status_code=202, operation_id="cancel_job", responses=document(403, 404, 409, 422))
def cancel(job: JobDep, services: ServicesDep) -> JobView:
    """Ends a waiting job at once and a running one within seconds. Cancelling again changes nothing."""
    cancelled = services.jobs.request_cancel(job.id) or job
    if cancelled.status == Status.CANCELLED:
        # Cancelled while it waited, no runner will clear up after it.
        services.store.delete_prefix(job_prefix(job.id))
    elif cancelled.finished:
        raise JobAlreadyFinished(
            f"The job is {cancelled.status.value}; it cannot be cancelled.", param="job_id", suggestion="Leave it as it is."
        )
    return to_job_view(cancelled)
