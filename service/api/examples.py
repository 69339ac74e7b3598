"""Examples of requests and answers for openapi.json, by operation; the answers are made by what makes the real ones."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from compressor.config import CompressionConfig
from service.api.problems import JobNotFound, RequestProblem
from service.api.schemas import (
    DatasetList,
    EventList,
    EventView,
    JobList,
    ModelList,
    to_artifact_list,
    to_dataset_upload,
    to_job_view,
    to_model_upload,
)
from service.api.webhook_schemas import DeliveryList, DeliveryView, WebhookList, WebhookView, WebhookWithSecret
from service.jobs.job import Artifact, Job, JobInput
from service.jobs.states import Status
from service.jobs.uploads.upload import Upload, UploadedFile, UploadKind, upload_id
from service.storage.keys import artifact_key, input_key, upload_key
from service.webhooks.endpoint import DEFAULT_EVENTS

_ID = "job_188fd2a4c9b3e5001f0c7d2e9ab84c36"
WEEK_S = 7 * 86400.0
_SENT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def _sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _artifact(name: str, num_bytes: int, media_type: str) -> Artifact:
    return Artifact(name=name, key=artifact_key(_ID, 1, name), bytes=num_bytes, sha256=_sha256(name), media_type=media_type)


_QUEUED = Job(
    id=_ID,
    config=CompressionConfig(max_metric_drop=0.01).model_dump(mode="json"),
    inputs={
        "model": JobInput(key=input_key(_ID, "model", ".onnx"), filename="model.onnx", bytes=1_066_493, sha256=_sha256("model")),
        "dataset": JobInput(ref="builtin:digits"),
    },
    max_attempts=3,
    created_at=_SENT,
)
_RUNNING = _QUEUED.model_copy(
    update={
        "status": Status.RUNNING,
        "phase": "fit",
        "progress": 0.42,
        "eta_s": 95.0,
        "metrics": {"epoch": 12.0, "round": 1.0, "loss": 0.083, "beta": 1.0, "sparsity": 0.61},
        "attempts": 1,
        "started_at": _SENT + timedelta(seconds=1),
    }
)
_SUCCEEDED = _RUNNING.model_copy(
    update={
        "status": Status.SUCCEEDED,
        "phase": None,
        "progress": 1.0,
        "eta_s": None,
        "verdict": "model.onnx is 25.9 times smaller than the upload (41,207 of 1,066,493 bytes) and keeps 1 weight in 46.3, at a test "
        "accuracy of 97.22% against 97.50% dense.",
        "artifacts": [_artifact("model.onnx", 41_207, "application/octet-stream"), _artifact("report.json", 23_118, "application/json")],
        "finished_at": _SENT + timedelta(seconds=164),
    }
)

_MODEL_FILE = UploadedFile(key=upload_key("upload", "model", ".onnx"), filename="model.onnx", bytes=1_066_493, sha256=_sha256("model"))
_PARTS = {
    part: UploadedFile(key=upload_key("upload", part, ".parquet"), filename=f"{part}.parquet", bytes=size, sha256=_sha256(part))
    for part, size in {"train": 15_561_616, "test": 2_595_890}.items()
}


def _upload(kind: UploadKind, files: dict[str, UploadedFile]) -> Upload:
    return Upload(id=upload_id(kind, files), kind=kind, serial=_ID[4:], created_at=_SENT, used_at=_SENT, files=files)


_MODEL = to_model_upload(_upload("model", {"model": _MODEL_FILE}), WEEK_S)
_DATASET = to_dataset_upload(_upload("dataset", _PARTS), WEEK_S)

_EVENTS = [
    EventView(id=1, created_at=_SENT, level="info", type="status", message="Waits for a worker.", data={"status": "queued"}),
    EventView(
        id=2,
        created_at=_SENT + timedelta(seconds=1),
        level="info",
        type="status",
        message="A worker looks at the model.",
        data={"status": "validating"},
    ),
]

_SELECT = {
    "summary": "Another point of the curve of a job that has finished",
    "value": {"kind": "select", "parent_id": _ID, "config": {"point": 3}},
}
_FORMS: dict[str, dict[str, Any]] = {
    "compress": {
        "summary": "Compress, and lose at most a point of accuracy",
        "value": {"model": "(model.onnx)", "dataset_ref": "builtin:digits", "config": {"max_metric_drop": 0.01}},
    },
    "inspect": {"summary": "What a run would make of a model, without rows", "value": {"kind": "inspect", "model": "(model.onnx)"}},
    "select": _SELECT,
}
_OBJECTS: dict[str, dict[str, Any]] = {
    "compress": {
        "summary": "Compress a model that the service can read itself",
        "value": {
            "model_ref": "file:/data/model.onnx",
            "dataset_ref": "builtin:digits",
            "config": {"max_metric_drop": 0.01},
            "metadata": {"project": "demo"},
        },
    },
    "inspect": {"summary": "What a run would make of it", "value": {"kind": "inspect", "model_ref": f"id:{_MODEL.id}"}},
    "select": _SELECT,
}
# Operations that take these.
CREATIONS = ("compress", "create_job")
REQUESTS = {"multipart/form-data": _FORMS, "application/json": _OBJECTS}
# Of operations with a body of their own.
REQUESTS_OF: dict[str, dict[str, Any]] = {
    "create_webhook": {
        "ends": {"summary": "Tell me when a job has ended", "value": {"url": "https://example.org/bayespress", "description": "CI"}},
        "chosen": {
            "summary": "Only of jobs that went wrong",
            "value": {"url": "https://example.org/alarm", "events": ["job.failed", "job.failed_gate"]},
        },
    },
    "change_webhook": {"enable": {"summary": "Take up again what was disabled", "value": {"enabled": True}}},
}

_WEBHOOK = WebhookView(
    id="whk_188fd2a4c9b3e5001f0c7d2e9ab84c36",
    url="https://example.org/bayespress",
    events=list(DEFAULT_EVENTS),
    description="CI",
    enabled=True,
    disabled_reason=None,
    failing_since=None,
    created_at=_SENT,
)
_WITH_SECRET = WebhookWithSecret(**_WEBHOOK.model_dump(), secret="whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDC2FVsBQIhrs=")  # noqa: S106  of nobody
_DELIVERY = DeliveryView(
    id="msg_188fd2cc8a1f4e003b7d5a90c1e2f684",
    type="job.succeeded",
    job_id=_ID,
    event_id=57,
    status="delivered",
    attempts=1,
    last_status=204,
    last_error=None,
    next_attempt_at=None,
    created_at=_SENT + timedelta(seconds=164),
    finished_at=_SENT + timedelta(seconds=165),
)

RESPONSES: dict[str, tuple[str, BaseModel]] = {
    "compress": ("202", to_job_view(_QUEUED)),
    "create_job": ("202", to_job_view(_QUEUED)),
    "get_job": ("200", to_job_view(_RUNNING)),
    "list_jobs": ("200", JobList(data=[to_job_view(_SUCCEEDED)], next=None)),
    "cancel_job": ("202", to_job_view(_RUNNING.model_copy(update={"status": Status.CANCELLING, "cancel_requested": True}))),
    "upload_model": ("201", _MODEL),
    "list_models": ("200", ModelList(data=[_MODEL], next=None)),
    "get_model": ("200", _MODEL),
    "upload_dataset": ("201", _DATASET),
    "list_datasets": ("200", DatasetList(data=[_DATASET], next=None)),
    "get_dataset": ("200", _DATASET),
    "list_artifacts": ("200", to_artifact_list(_SUCCEEDED)),
    "list_events": ("200", EventList(data=_EVENTS, next=None)),
    "create_webhook": ("201", _WITH_SECRET),
    "rotate_webhook_secret": ("200", _WITH_SECRET),
    "list_webhooks": ("200", WebhookList(data=[_WEBHOOK])),
    "get_webhook": ("200", _WEBHOOK),
    "change_webhook": ("200", _WEBHOOK),
    "list_webhook_deliveries": ("200", DeliveryList(data=[_DELIVERY], next=None)),
}
PROBLEM = RequestProblem(
    **JobNotFound("There is no job 'job_x'.", param="job_id", suggestion="GET /v1/jobs lists the jobs.").to_problem().model_dump(),
    request_id="req_5f2b8c0d9e1a4b7c8d6e3f2a1b0c9d8e",
)
