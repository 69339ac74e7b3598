"""What the routers are given: the jobs table, the store, the settings, and the job that a path names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from service.api.caller import CallerDep
from service.api.feed import EventFeed
from service.api.problems import JobNotFinished, JobNotFound
from service.api.watcher import JobWatcher
from service.jobs.events.repository import EventRepository
from service.jobs.idempotency.repository import IdempotencyRepository
from service.jobs.job import Job
from service.jobs.repository import JobRepository
from service.jobs.uploads.repository import UploadRepository
from service.settings import Settings
from service.storage.store import ObjectStore
from service.webhooks.deliveries.repository import DeliveryRepository
from service.webhooks.repository import EndpointRepository


@dataclass(frozen=True)
class Services:
    """What one application works with. Each of `checks` raises where its part of the service cannot work."""

    settings: Settings
    jobs: JobRepository
    events: EventRepository
    store: ObjectStore
    keys: IdempotencyRepository
    uploads: UploadRepository
    watcher: JobWatcher
    webhooks: EndpointRepository
    deliveries: DeliveryRepository
    feed: EventFeed
    checks: Mapping[str, Callable[[], object]]


# Not async, it would take a thread of the pool for every request.
async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


def get_job(services: ServicesDep, caller: CallerDep, job_id: Annotated[str, Path(description="the `id` of a job")]) -> Job:
    """What is another's is not there."""
    job = services.jobs.get(job_id, caller.sees)
    if job is None:
        raise JobNotFound(f"There is no job {job_id[:80]!r}.", param="job_id", suggestion="GET /v1/jobs lists the jobs.")
    return job


JobDep = Annotated[Job, Depends(get_job)]


def get_finished_job(job: JobDep) -> Job:
    if not job.finished:
        detail = f"The job is {job.status.value}; it has not finished."
        suggestion = f"Ask GET /v1/jobs/{job.id} until finished_at is set."
        raise JobNotFinished(detail, param="job_id", suggestion=suggestion, headers={"Retry-After": "2"})
    return job


FinishedJobDep = Annotated[Job, Depends(get_finished_job)]
