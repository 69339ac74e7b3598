"""POST /compress, the short form of POST /v1/jobs."""

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.creation import CreationOptionsDep, create_job
from service.api.dependencies import ServicesDep
from service.api.problems import document
from service.api.schemas import JobView, Validated
from service.api.uploads.json_body import FILES
from service.api.uploads.metadata import MAX_PAIRS, METADATA, RULE

router = APIRouter(tags=["jobs"])

_REMOTE = (
    "`id:` and the id of an upload, `file:PATH` under a data root of the service, or, where the settings let it (`reference_schemes` of "
    "/v1/info), `https://…`, "
    "`s3://BUCKET/KEY`, `hf://ORG/NAME@REV/PATH` or `hf://datasets/ORG/NAME@REV/PATH`, which a runner fetches before the run; "
    "`#sha256=` and 64 hexadecimal digits at the end say which bytes are meant."
)
_FILE = {"type": "string", "format": "binary"}
_PARTS: dict[str, dict[str, Any]] = {
    "kind": {
        "$ref": "#/components/schemas/Kind",
        "default": "compress",
        "description": "inspect says what a run would do with the model, without rows and without training; select exports another point "
        "of the curve of a job that has finished.",
    },
    "model": {**_FILE, "description": "The dense model: ONNX, with its weights inside. For compress and inspect."},
    "dataset": {**_FILE, "description": "Training rows: parquet, or .npz with x and y. This or `dataset_ref`, for compress alone."},
    "validation": {**_FILE, "description": "Rows that choose the point. Absent: a tenth of the training rows."},
    "test": {**_FILE, "description": "Rows for the reported metric. Absent: a tenth of the training rows."},
    "model_ref": {"type": "string", "description": f"A reference in place of `model`: {_REMOTE}"},
    "dataset_ref": {"type": "string", "description": f"`builtin:digits`, {_REMOTE} Of an uploaded dataset all parts are taken."},
    "validation_ref": {"type": "string", "description": _REMOTE},
    "test_ref": {"type": "string", "description": _REMOTE},
    "parent_id": {
        "type": "string",
        "description": "The `id` of a finished job, whose model and curve are taken. For select alone.",
    },
    "config": {"$ref": "#/components/schemas/CompressionConfig"},
    METADATA: {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": MAX_PAIRS, "description": RULE},
}
# In JSON a file can only be named.
_MEMBERS = {name: part for name, part in _PARTS.items() if name not in FILES}
_OBJECT = {"type": "object", "additionalProperties": False}
# The body is parsed while it streams, so the framework knows nothing of it.
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"title": "JobRequest", **_OBJECT, "properties": _MEMBERS}},
            "multipart/form-data": {
                "schema": {"title": "JobForm", **_OBJECT, "properties": _PARTS},
                "encoding": {name: {"contentType": "application/json"} for name in ("config", METADATA)},
            },
        },
    }
}
ACCEPTED: dict[str, Any] = {
    "description": "The job is queued, or was before by a request with the same Idempotency-Key.",
    "model": JobView,
    "headers": {
        "Location": {"description": "Path of the job.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds after which to ask for the first time.", "schema": {"type": "integer"}},
    },
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The request is in order; with `validate_only` nothing is kept of it.", "model": Validated},
    202: ACCEPTED,
    **document(400, 403, 404, 409, 413, 415, 422, 429),
}


@router.post("/compress", operation_id="compress", status_code=202, responses=RESPONSES, response_model=JobView, openapi_extra=REQUEST_BODY)
async def compress(request: Request, services: ServicesDep, options: CreationOptionsDep) -> Response:
    """Takes a model and a dataset and queues a job that compresses the model; the same as `POST /v1/jobs`, with every `kind`."""
    return await create_job(request, services, options)
