"""How a request becomes a job: `POST /compress`, `POST /v1/jobs` and their options."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.caller import Caller, CallerDep
from service.api.dependencies import Services
from service.api.idempotency import check_same, fingerprint_of, in_use, reserving
from service.api.schemas import Validated, job_path, to_job_view, to_validated
from service.api.uploads.parents import inputs_of
from service.api.uploads.submission import Submission, receive_submission
from service.api.uploads.uploaded import UploadedInputs
from service.jobs.idempotency.repository import KeyRecord
from service.jobs.job import Job, new_job, new_job_id
from service.storage.keys import job_prefix


@dataclass(frozen=True)
class CreationOptions:
    idempotency_key: str | None
    validate_only: bool
    caller: Caller


def read_options(
    caller: CallerDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="Drawn by the client, once for each request that it means. The same key with the same parts gives the first job.",
        ),
    ] = None,
    validate_only: Annotated[bool, Query(description="Only check the request: 200, and nothing is kept of it.")] = False,
) -> CreationOptions:
    return CreationOptions(idempotency_key, validate_only, caller)


CreationOptionsDep = Annotated[CreationOptions, Depends(read_options)]


async def create_job(request: Request, services: Services, options: CreationOptions) -> Response:
    """Receives the request. 202 and the job, which is the first one where the key came before; 200 where it was only checked."""
    job_id, caller = new_job_id(), options.caller
    if options.validate_only:
        return _to_response(await _validate(request, job_id, services, caller), 200)
    async with reserving(caller.owner, options.idempotency_key, job_id, services.keys, services.settings) as first:
        if first is None:
            # Before anything is received for nothing.
            await run_in_threadpool(services.jobs.check_room, caller.owner, caller.quotas)
        submission = await _receive(request, job_id, services, caller)
        try:
            if first is None:
                job = await run_in_threadpool(_insert, submission, job_id, options, services)
            else:
                job = await run_in_threadpool(_find_first, first, submission, services)
                await run_in_threadpool(services.store.delete_prefix, job_prefix(job_id))
        except Exception:
            services.store.delete_prefix(job_prefix(job_id))
            raise
    response = _to_response(to_job_view(job), 202)
    announce(job, response)
    return response


def announce(job: Job, response: Response) -> None:
    """Says where the job is, and when to ask for it first."""
    response.headers["Location"] = job_path(job.id)
    response.headers["Retry-After"] = "2"


async def _receive(request: Request, job_id: str, services: Services, caller: Caller) -> Submission:
    uploaded = UploadedInputs(caller.owner, services.uploads, services.store)
    return await receive_submission(request, job_id, services.store, caller.limit(services.settings), uploaded)


async def _validate(request: Request, job_id: str, services: Services, caller: Caller) -> Validated:
    await run_in_threadpool(services.jobs.check_room, caller.owner, caller.quotas)
    submission = await _receive(request, job_id, services, caller)
    try:
        return to_validated(await run_in_threadpool(_to_job, submission, job_id, services, caller))
    finally:
        services.store.delete_prefix(job_prefix(job_id))


def _insert(submission: Submission, job_id: str, options: CreationOptions, services: Services) -> Job:
    key, quotas = options.idempotency_key, options.caller.quotas
    job = _to_job(submission, job_id, services, options.caller)
    if key is None:
        services.jobs.insert(job, quotas)
    elif not services.keys.insert_job(key, fingerprint_of(submission), job, services.settings.idempotency_ttl_s, quotas):
        # We were away for longer than a lease, and another request has the key now.
        raise in_use()
    return job


def _find_first(first: KeyRecord, submission: Submission, services: Services) -> Job:
    check_same(first, fingerprint_of(submission))
    job = services.jobs.get(first.job_id)
    if job is None:
        # Deleted a moment ago, and its key with it.
        raise in_use()
    return job


def _to_job(submission: Submission, job_id: str, services: Services, caller: Caller) -> Job:
    parent_id = submission.parent_id
    return new_job(
        job_id=job_id,
        owner=caller.owner,
        kind=submission.kind,
        config=submission.config.model_dump(mode="json"),
        parent_id=parent_id,
        metadata=submission.metadata,
        inputs=submission.inputs if parent_id is None else inputs_of(parent_id, services.jobs, caller),
        max_attempts=services.settings.max_attempts,
        max_running_jobs=caller.quotas.max_running_jobs,
    )


def _to_response(view: Validated, status: int) -> Response:
    return Response(view.model_dump_json(), status, media_type="application/json")
