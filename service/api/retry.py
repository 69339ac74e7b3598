"""POST /v1/jobs/{job_id}/retry: a new job with the inputs of one that ended without success (.github/decisions/0008)."""

from pathlib import PurePosixPath

from fastapi import APIRouter, Response

from service.api.caller import CallerDep
from service.api.compress import ACCEPTED
from service.api.creation import announce
from service.api.dependencies import FinishedJobDep, ServicesDep
from service.api.problems import InputsGone, JobAlreadyFinished, document
from service.api.schemas import JobView, to_job_view
from service.api.uploads.parents import inputs_of
from service.jobs.job import Job, JobInput, new_job, new_job_id
from service.jobs.states import Status
from service.storage.keys import input_key, job_prefix
from service.storage.store import ObjectStore

router = APIRouter(prefix="/v1/jobs/{job_id}/retry", tags=["jobs"])


@router.post("", status_code=202, operation_id="retry_job", responses={202: ACCEPTED, **document(403, 404, 409, 410, 422, 429)})
def retry(job: FinishedJobDep, services: ServicesDep, caller: CallerDep, response: Response) -> JobView:
    """Queues a new job with the inputs, the configuration and the metadata of one that failed, was cancelled or missed a gate.

    It belongs to the owner of the old one, whoever asks.
    """
    if job.status is Status.SUCCEEDED:
        raise JobAlreadyFinished("The job has succeeded.", param="job_id", suggestion="Send a new job where another run is wanted.")
    new_id = new_job_id()
    try:
        again = new_job(
            job_id=new_id,
            owner=job.owner,
            kind=job.kind,
            config=job.config,
            # A selection reads its parent's files, and has none of its own.
            inputs=inputs_of(job.parent_id, services.jobs, caller) if job.parent_id else _copy_inputs(job, new_id, services.store),
            parent_id=job.parent_id,
            retry_of=job.id,
            metadata=job.metadata,
            max_attempts=services.settings.max_attempts,
            max_running_jobs=caller.quotas.max_running_jobs if caller.owner == job.owner else job.max_running_jobs,
        )
        services.jobs.insert(again, caller.quotas)
    except BaseException:
        services.store.delete_prefix(job_prefix(new_id))
        raise
    announce(again, response)
    return to_job_view(again)


def _copy_inputs(job: Job, new_id: str, store: ObjectStore) -> dict[str, JobInput]:
    """Its own objects, so that either job can be deleted without the other."""
    return {name: _copy_input(name, given, new_id, store) for name, given in job.inputs.items()}


def _copy_input(name: str, given: JobInput, new_id: str, store: ObjectStore) -> JobInput:
    if given.key is None:
        return given
    key = input_key(new_id, name, PurePosixPath(given.key).suffix)
    try:
        store.copy(given.key, key)
    except FileNotFoundError:
        detail = f"The file {name!r} of the job is no longer stored."
        raise InputsGone(detail, param="job_id", suggestion="Send a new job with the files.") from None
    return given.model_copy(update={"key": key})
