"""`Job`: one row of the jobs table as a frozen value."""

import re
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from compressor.errors import Problem
from compressor.protocol import Kind
from service.jobs.states import TERMINAL, Status
from service.storage.keys import job_prefix

# The owner of everything where the service asks for no keys.
LOCAL = "local"

# Of a reference to what was uploaded by itself.
ID_SCHEME = "id:"
# Of references to what is never copied into the store.
IN_PLACE = ("builtin:", "file:")


class JobInput(BaseModel):
    """One input file: an object of the store (`key`), or a reference that the API has already checked (`ref`).

    A reference to elsewhere gets a key when its file has been fetched; one to an upload (`id:`) has one, of the job's own copy. As long as
    there is none, `sha256` is the one that the file must have, if any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str | None = None
    ref: str | None = None
    filename: str | None = None
    bytes: int | None = None
    sha256: str | None = None

    @model_validator(mode="after")
    def _has_source(self) -> "JobInput":
        scheme = None if self.ref is None else f"{self.ref.partition(':')[0]}:"
        if self.key is None and scheme in {None, ID_SCHEME}:
            raise ValueError("an input has a key, or a ref to what is not an upload")
        if self.key is not None and scheme in IN_PLACE:
            raise ValueError("an input has no key where its ref is read in its place")
        return self


class Artifact(BaseModel):
    """One finished file of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    key: str
    bytes: int
    sha256: str
    media_type: str


class Job(BaseModel):
    """A job as it stood when the row was read. Datetimes are aware, in UTC."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    owner: str = LOCAL
    kind: Kind = "compress"
    # The job whose model and curve a selection takes.
    parent_id: str | None = None
    # The job that this one repeats.
    retry_of: str | None = None
    # What the client notes about the job.
    metadata: dict[str, str] = {}
    status: Status = Status.QUEUED
    phase: str | None = None
    progress: float = 0.0
    eta_s: float | None = None
    # When `eta_s`, counted from the moment that it was written, will have passed.
    estimated_finish: datetime | None = None
    metrics: dict[str, float] = {}
    error: Problem | None = None
    verdict: str | None = None
    config: dict[str, Any]
    inputs: dict[str, JobInput]
    artifacts: list[Artifact] = []
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    max_attempts: int
    # How many jobs of its owner may run where this one is to start.
    max_running_jobs: int | None = None
    # The fence counts the claims of this job; a write that carries an older one is dropped.
    fence: int = 0
    lease_until: datetime | None = None
    cancel_requested: bool = False
    # The home and the process that hold the lease (service.worker.processes), and the last lines of the trainer's log.
    home: str | None = None
    process: str | None = None
    log_tail: str = ""

    @field_validator("metadata", mode="before")
    @classmethod
    def _none_in_older_rows(cls, value: Any) -> Any:
        return {} if value is None else value

    @property
    def finished(self) -> bool:
        return self.status in TERMINAL

    @property
    def stored_bytes(self) -> int:
        """Of its own files; what a selection reads is its parent's."""
        inputs = sum(given.bytes or 0 for given in self.inputs.values() if (given.key or "").startswith(f"{job_prefix(self.id)}/"))
        return inputs + sum(artifact.bytes for artifact in self.artifacts)


JOB_ID = re.compile(r"^job_[0-9a-f]{32}$")


def new_job_id() -> str:
    """`job_` and 32 hexadecimal digits that begin with the time in nanoseconds: ids sort in the order of creation."""
    return f"job_{time.time_ns():016x}{secrets.token_hex(8)}"


def new_job(
    *,
    config: dict[str, Any],
    inputs: dict[str, JobInput],
    owner: str = LOCAL,
    kind: Kind = "compress",
    parent_id: str | None = None,
    retry_of: str | None = None,
    metadata: dict[str, str] | None = None,
    max_attempts: int = 3,
    max_running_jobs: int | None = None,
    job_id: str | None = None,
) -> Job:
    """A queued job. `job_id` where the inputs were stored under an id drawn before."""
    return Job(
        id=job_id or new_job_id(),
        owner=owner,
        kind=kind,
        parent_id=parent_id,
        retry_of=retry_of,
        metadata=metadata or {},
        config=config,
        inputs=inputs,
        max_attempts=max_attempts,
        max_running_jobs=max_running_jobs,
        created_at=datetime.now(UTC),
    )
