"""The messages. They are thin: what has happened to which job, and where to ask for more."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel
from typing_extensions import TypeAliasType

from compressor.protocol import Kind
from service.jobs.events.event import NewEvent
from service.jobs.states import Status
from service.webhooks.endpoint import EventName

SampleName = TypeAliasType("SampleName", Literal["webhook.test"])
SAMPLE: SampleName = "webhook.test"


class JobLinks(BaseModel):
    """Paths at the service."""

    self: str


class JobNews(BaseModel):
    """What a message says of a job; `code` is that of the problem of one that failed. `event_id` counts the events of the job."""

    id: str
    kind: Kind
    status: Status
    event_id: int
    code: str | None = None
    links: JobLinks


class SampleNews(BaseModel):
    """What a test says: nothing but the endpoint that it was asked for."""

    webhook_id: str


class WebhookMessage(BaseModel):
    """The body of a webhook. `timestamp` is when it happened, which the header `webhook-timestamp`, that of the attempt, is not."""

    type: EventName | SampleName
    timestamp: datetime
    data: JobNews | SampleNews


def event_name(status: Status) -> EventName:
    name: EventName = f"job.{status.value}"  # type: ignore[assignment]  # the names are those of all states, tested
    return name


def job_message(job_id: str, kind: Kind, event_id: int, event: NewEvent) -> WebhookMessage:
    status = Status(event.data["status"])
    news = JobNews(
        id=job_id,
        kind=kind,
        status=status,
        event_id=event_id,
        code=event.data.get("code"),
        links=JobLinks(self=f"/v1/jobs/{job_id}"),
    )
    return WebhookMessage(type=event_name(status), timestamp=event.created_at, data=news)


def sample_message(webhook_id: str) -> WebhookMessage:
    return WebhookMessage(type=SAMPLE, timestamp=datetime.now(UTC), data=SampleNews(webhook_id=webhook_id))
