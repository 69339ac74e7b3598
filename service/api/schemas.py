"""The JSON objects of the HTTP interface."""

from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel

from compressor.config import CompressionConfig, Format
from compressor.errors import Problem
from compressor.protocol import Kind
from service.devices import Device
from service.jobs.events.event import Event, EventType, Level
from service.jobs.job import Job, JobInput
from service.jobs.states import Status
from service.jobs.uploads.upload import Upload, UploadKind
from service.references import Scheme, to_shown


class InputView(BaseModel):
    """One input of a job: a file that was sent, or a reference."""

    filename: str | None = Field(description="as the client named it")
    ref: str | None = Field(description="the reference, without the query of a URL")
    bytes: int | None
    sha256: str | None = Field(description="of what was sent or fetched; of a file that is still to be fetched the one that it must have")


class Links(BaseModel):
    """Paths of what belongs to a job."""

    self: str
    cancel: str
    pause: str
    resume: str
    retry: str
    events: str
    artifacts: str
    report: str


class Validated(BaseModel):
    """What a request asks for, as it was understood."""

    kind: Kind
    parent_id: str | None = Field(description="the job whose curve a selection is from")
    metadata: dict[str, str] = Field(description="what the client noted about the job")
    config: CompressionConfig
    inputs: dict[str, InputView]


class JobView(Validated):
    """A job. `error` is the problem object of a job that failed or missed its accuracy budget."""

    id: str
    owner: str = Field(description="whose job it is: the owner of the key that sent it; local without one")
    retry_of: str | None = Field(description="the job that this one repeats")
    status: Status
    phase: str | None = Field(description="step of the run; null before the first")
    progress: float = Field(ge=0.0, le=1.0, description="part of the run that is done")
    eta_s: float | None = Field(description="seconds that the run will still take; null where that is not known")
    estimated_finish: datetime | None = Field(description="when the run will probably end; null where that is not known")
    metrics: dict[str, float]
    error: Problem | None
    verdict: str | None = Field(description="the result in one sentence")
    attempts: int
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: Links


class JobList(BaseModel):
    """A page of jobs, the newest first. `next` is the `after` of the next page; null on the last one."""

    data: list[JobView]
    next: str | None


class ArtifactView(BaseModel):
    """A finished file of a job."""

    name: str
    bytes: int
    sha256: str
    media_type: str
    href: str


class ArtifactList(BaseModel):
    data: list[ArtifactView]


class EventView(BaseModel):
    """One thing that happened to a job."""

    id: int = Field(description="counts the events of the job from 1")
    created_at: datetime
    level: Level
    type: EventType
    message: str
    data: dict[str, Any] = Field(description="what the message says, for programs; its members go by the type")


class EventList(BaseModel):
    """A page of events, the oldest first. `next` is the `after` of the next page; null where no more have happened yet."""

    data: list[EventView]
    next: int | None


class Health(BaseModel):
    """The state of the service; `checks` names what was looked at."""

    status: Literal["ok"] = "ok"
    checks: list[str] = []


class UploadLinks(BaseModel):
    self: str


class UploadView(BaseModel):
    """What was uploaded by itself. `id:` and its id are a reference to it."""

    id: str
    kind: UploadKind
    bytes: int
    created_at: datetime
    expires_at: datetime = Field(description="when it may be removed; every use puts this off")
    links: UploadLinks


class ModelUpload(UploadView):
    """A model that jobs can name."""

    sha256: str
    filename: str | None = Field(description="as the client named it first")


class PartView(BaseModel):
    """One file of a dataset."""

    bytes: int
    sha256: str
    filename: str | None = Field(description="as the client named it first")


class DatasetUpload(UploadView):
    """A dataset that jobs can name."""

    parts: dict[str, PartView] = Field(description="train and, where they were sent, validation and test")


class ModelList(BaseModel):
    """A page of models, the newest first. `next` is the `after` of the next page; null on the last one."""

    data: list[ModelUpload]
    next: str | None


class DatasetList(BaseModel):
    """A page of datasets, the newest first. `next` is the `after` of the next page; null on the last one."""

    data: list[DatasetUpload]
    next: str | None


class OpsetRange(BaseModel):
    """Opsets of ai.onnx that an uploaded model may have, both ends included."""

    min: int
    max: int


class Formats(BaseModel):
    """What files may be, by suffix, and the forms of the model that `formats` of a configuration may ask for."""

    model: list[str]
    dataset: list[str]
    delivered: list[Format]


class Limits(BaseModel):
    """What bounds a request or a run, by the settings of the service and by the key; null is no limit."""

    max_model_bytes: int
    max_upload_bytes: int
    max_queued_jobs: int | None = Field(description="jobs of an owner that have not finished")
    max_running_jobs: int | None = Field(description="jobs of an owner that run at the same time")
    max_stored_bytes: int | None = Field(description="inputs, artifacts and uploads of an owner with which more is taken")
    workers: int = Field(description="jobs that run at the same time")
    max_attempts: int
    idempotency_ttl_s: float = Field(description="how long an Idempotency-Key is remembered")
    retain_uploads_s: float = Field(description="how long a model or dataset is kept since its last use")
    retain_jobs_s: float | None = Field(description="how long a finished job is kept")
    trainer_memory_bytes: int | None
    trainer_wall_s: int | None


class Info(BaseModel):
    """What the service is and takes."""

    version: str
    kinds: list[Kind]
    devices: list[Device] = Field(description="of the machine that answers; empty where it runs no jobs itself")
    reference_schemes: list[Scheme] = Field(
        description="of references, before the colon, that are on; https takes http for hosts that the settings name"
    )
    opset: OpsetRange
    formats: Formats
    limits: Limits


class ConfigSchema(RootModel[dict[str, Any]]):
    """A JSON Schema of `CompressionConfig`."""


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}"


def to_validated(job: Job) -> Validated:
    return Validated(**job.model_dump(include=set(Validated.model_fields) - {"inputs"}), inputs=_to_input_views(job))


def to_job_view(job: Job) -> JobView:
    path = job_path(job.id)
    values = job.model_dump(include=set(JobView.model_fields) - {"inputs"})
    links = Links(self=path, **{name: f"{path}/{name}" for name in Links.model_fields if name != "self"})
    return JobView(**values, inputs=_to_input_views(job), links=links)


def _to_input_views(job: Job) -> dict[str, InputView]:
    return {name: _to_input_view(given) for name, given in job.inputs.items()}


def _to_input_view(given: JobInput) -> InputView:
    return InputView(**given.model_dump(exclude={"key", "ref"}), ref=given.ref and to_shown(given.ref))


def upload_path(kind: UploadKind, upload_id: str) -> str:
    return f"/v1/{kind}s/{upload_id}"


def to_model_upload(upload: Upload, retain_s: float) -> ModelUpload:
    file = upload.files["model"]
    return ModelUpload(**_to_upload_values(upload, retain_s), sha256=file.sha256, filename=file.filename)


def to_dataset_upload(upload: Upload, retain_s: float) -> DatasetUpload:
    parts = {name: PartView(**file.model_dump(exclude={"key"})) for name, file in upload.files.items()}
    return DatasetUpload(**_to_upload_values(upload, retain_s), parts=parts)


def _to_upload_values(upload: Upload, retain_s: float) -> dict[str, Any]:
    return {
        "id": upload.id,
        "kind": upload.kind,
        "bytes": sum(file.bytes for file in upload.files.values()),
        "created_at": upload.created_at,
        "expires_at": upload.used_at + timedelta(seconds=retain_s),
        "links": UploadLinks(self=upload_path(upload.kind, upload.id)),
    }


def to_event_view(event: Event) -> EventView:
    return EventView(**event.model_dump())


def to_artifact_list(job: Job) -> ArtifactList:
    path = f"{job_path(job.id)}/artifacts"
    views = [ArtifactView(**artifact.model_dump(exclude={"key"}), href=f"{path}/{artifact.name}") for artifact in job.artifacts]
    return ArtifactList(data=views)
