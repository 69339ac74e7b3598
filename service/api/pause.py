"""/v1/jobs/{job_id}/pause and /resume: a job makes room for others, and goes on from its last checkpoint."""

from fastapi import APIRouter

from service.api.dependencies import JobDep, ServicesDep
from service.api.problems import JobAlreadyFinished, JobBeingCancelled, JobBeingPaused, document
from service.api.schemas import JobView, to_job_view
from service.jobs.job import Job
from service.jobs.states import Status

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@router.post("/pause", status_code=202, operation_id="pause_job", responses=document(403, 404, 409, 422))
def pause(job: JobDep, services: ServicesDep) -> JobView:
    """Holds a waiting job at once; a running one saves a checkpoint and leaves within seconds. Pausing again changes nothing."""
    return to_job_view(_check_open(services.jobs.request_pause(job.id) or job))


@router.post("/resume", status_code=202, operation_id="resume_job", responses=document(403, 404, 409, 422))
def resume(job: JobDep, services: ServicesDep) -> JobView:
    """Puts a paused job back into the queue, where it has its old place. Of a job that waits or runs nothing is changed."""
    resumed = _check_open(services.jobs.resume(job.id) or job)
    if resumed.status is Status.PAUSING:
        detail = "The job still runs, and will be paused in a moment."
        raise JobBeingPaused(detail, param="job_id", suggestion="Resume it when its status is paused.", headers={"Retry-After": "2"})
    return to_job_view(resumed)


def _check_open(job: Job) -> Job:
    if job.finished:
        detail = f"The job is {job.status.value}; it neither waits nor runs."
        raise JobAlreadyFinished(detail, param="job_id", suggestion="POST .../retry makes a new job of one that ended without success.")
    if job.status is Status.CANCELLING:
        raise JobBeingCancelled(
            "The job is being cancelled.", param="job_id", suggestion="Leave it as it is, or retry it when it has ended."
        )
    return job
