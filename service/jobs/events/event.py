"""`Event`: one thing that happened to a job. The last event of a finished job is the status that it ended with."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from compressor.errors import Problem
from compressor.protocol import Progress
from service.jobs.states import Status

Level = TypeAliasType("Level", Literal["info", "warn", "error"])
EventType = TypeAliasType("EventType", Literal["message", "metrics", "phase", "status"])

_MESSAGES = {
    Status.QUEUED: "Waits for a worker.",
    Status.VALIDATING: "A worker looks at the model.",
    Status.RUNNING: "The run has begun.",
    Status.PAUSING: "Is being paused.",
    Status.PAUSED: "Paused.",
    Status.CANCELLING: "Is being cancelled.",
    Status.CANCELLED: "Cancelled.",
    Status.SUCCEEDED: "Done.",
}
_LEVELS: dict[Status, Level] = {Status.FAILED: "error", Status.FAILED_GATE: "warn"}


class NewEvent(BaseModel):
    """An event before the table has numbered it."""

    model_config = ConfigDict(frozen=True)

    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    level: Level = "info"
    type: EventType
    message: str
    data: dict[str, Any] = {}


class Event(NewEvent):
    """`id` counts the events of its job from 1."""

    id: int


def status_event(status: Status, *, level: Level | None = None, message: str | None = None, error: Problem | None = None) -> NewEvent:
    """`data` has the status and, of a job that failed, the code of its problem."""
    data = {"status": status.value} | ({"code": error.code} if error else {})
    text = message or (error.detail if error else _MESSAGES.get(status, status.value))
    return NewEvent(level=level or _LEVELS.get(status, "info"), type="status", message=text, data=data)


def phase_event(progress: Progress) -> NewEvent:
    data = progress.model_dump(include={"phase", "progress", "eta_s"})
    return NewEvent(type="phase", message=f"{progress.phase} ({progress.progress:.0%} of the run done)", data=data)


def metrics_event(progress: Progress) -> NewEvent:
    text = ", ".join(f"{name} {value:.5g}" for name, value in progress.metrics.items())
    return NewEvent(type="metrics", message=text, data=progress.model_dump(include={"phase", "progress", "metrics"}))
