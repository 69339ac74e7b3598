"""POST /compress, the short form of POST /v1/jobs."""

from typing import Any, get_args

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from compressor.protocol import Kind
from service.api.dependencies import Services, ServicesDep
from service.api.problems import document
from service.api.schemas import JobView, job_path, to_job_view
from service.api.uploads.metadata import MAX_PAIRS, METADATA, RULE
from service.api.uploads.parents import inputs_of
from service.api.uploads.submission import receive_submission
from service.jobs.job import Job, new_job, new_job_id
from service.storage.keys import job_prefix

router = APIRouter(tags=["jobs"])

_FILE = {"type": "string", "format": "binary"}
_PARTS: dict[str, dict[str, Any]] = {
    "kind": {
        "type": "string",
        "enum": list(get_args(Kind)),
        "default": "compress",
        "description": "inspect says what a run would do with the model, without rows and without training; select exports another point "
        "of the curve of a job that has finished.",
    },
    "model": {**_FILE, "description": "The dense model: ONNX, with its weights inside. For compress and inspect."},
    "dataset": {**_FILE, "description": "Training rows: parquet, or .npz with x and y. This or `dataset_ref`, for compress alone."},
    "validation": {**_FILE, "description": "Rows that choose the point. Absent: a tenth of the training rows."},
    "test": {**_FILE, "description": "Rows for the reported metric. Absent: a tenth of the training rows."},
    "dataset_ref": {"type": "string", "description": "`builtin:digits`, or `file:PATH` under a data root of the service."},
    "validation_ref": {"type": "string", "description": "`file:PATH` under a data root of the service."},
    "test_ref": {"type": "string", "description": "`file:PATH` under a data root of the service."},
    "parent_id": {
        "type": "string",
        "description": "The `id` of a finished job, whose model and curve are taken. For select alone.",
    },
    "config": {"$ref": "#/components/schemas/CompressionConfig"},
    METADATA: {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": MAX_PAIRS, "description": RULE},
}
# The body is parsed while it streams, so the framework knows nothing of it.
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "additionalProperties": False, "properties": _PARTS},
                "encoding": {name: {"contentType": "application/json"} for name in ("config", METADATA)},
            }
        },
    }
}
ACCEPTED: dict[str, Any] = {
    "description": "The job is queued.",
    "headers": {
        "Location": {"description": "Path of the job.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds after which to ask for the first time.", "schema": {"type": "integer"}},
    },
}
RESPONSES = {202: ACCEPTED, **document(400, 403, 404, 409, 413, 415, 422)}


@router.post("/compress", status_code=202, operation_id="compress", responses=RESPONSES, openapi_extra=REQUEST_BODY)
async def compress(request: Request, response: Response, services: ServicesDep) -> JobView:
    """Takes a model and a dataset and queues a job that compresses the model; the same as `POST /v1/jobs`, with every `kind`."""
    return to_job_view(await create_job(request, response, services))


async def create_job(request: Request, response: Response, services: Services) -> Job:
    """The queued job of a form; its Location is set on `response`."""
    job_id = new_job_id()
    submission = await receive_submission(request, job_id, services.store, services.settings)
    inputs = submission.inputs
    if submission.parent_id is not None:
        inputs = await run_in_threadpool(inputs_of, submission.parent_id, services.jobs)
    job = new_job(
        job_id=job_id,
        kind=submission.kind,
        config=submission.config.model_dump(mode="json"),
        parent_id=submission.parent_id,
        metadata=submission.metadata,
        inputs=inputs,
        max_attempts=services.settings.max_attempts,
    )
    try:
        await run_in_threadpool(services.jobs.insert, job)
    except BaseException:
        services.store.delete_prefix(job_prefix(job_id))
        raise
    announce(job, response)
    return job


def announce(job: Job, response: Response) -> None:
    """Says where the job is, and when to ask for it first."""
    response.headers["Location"] = job_path(job.id)
    response.headers["Retry-After"] = "2"
