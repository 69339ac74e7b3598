"""The JSON objects of /v1/webhooks."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from service.webhooks.deliveries.delivery import Delivery, DeliveryError, DeliveryStatus
from service.webhooks.endpoint import DEFAULT_EVENTS, EVENT_NAMES, DisabledReason, Endpoint, EventName

_URL = "https:, without user name, password and fragment; what it leads to must be public, or one of BAYESPRESS_REFERENCE_HOSTS"
_EVENTS = "what the webhook is sent"


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be printable")
    return text


Description = Annotated[str, Field(max_length=200), AfterValidator(_check_printable)]


class NewWebhook(BaseModel):
    """A webhook that is asked for."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(description=_URL)
    events: list[EventName] = Field(default=list(DEFAULT_EVENTS), min_length=1, max_length=len(EVENT_NAMES), description=_EVENTS)
    description: Description | None = None


def _drop_null(schema: dict[str, Any]) -> None:
    """What may be absent may not be null."""
    schema |= next(variant for variant in schema.pop("anyOf") if variant != {"type": "null"})
    del schema["default"]


class WebhookChange(BaseModel):
    """What is to be changed; what is absent stays. `enabled: true` takes up again what was disabled, for what happens from then on."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(default=None, description=_URL, json_schema_extra=_drop_null)
    events: list[EventName] | None = Field(
        default=None, min_length=1, max_length=len(EVENT_NAMES), description=_EVENTS, json_schema_extra=_drop_null
    )
    description: Description | None = None
    enabled: bool | None = Field(default=None, json_schema_extra=_drop_null)

    @field_validator("url", "events", "enabled")
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            raise ValueError("null is no value; leave it out")
        return value


class WebhookView(BaseModel):
    """A webhook."""

    id: str
    url: str
    events: list[EventName]
    description: str | None
    enabled: bool = Field(description="whether it is sent anything")
    disabled_reason: DisabledReason | None = Field(
        description="why the service disabled it: gone, it answered 410; failing, nothing has arrived for five days"
    )
    failing_since: datetime | None = Field(description="when the first attempt failed since the last that did not")
    created_at: datetime


class WebhookWithSecret(WebhookView):
    """A webhook and the secret that its messages are signed with, which is shown this once."""

    secret: str = Field(description="`whsec_` and, in base64, the key of HMAC-SHA256")


class WebhookList(BaseModel):
    """All webhooks, the oldest first."""

    data: list[WebhookView]


class DeliveryView(BaseModel):
    """One message to a webhook."""

    id: str = Field(description="the header `webhook-id`, the same in every attempt")
    type: str
    job_id: str | None = Field(description="null in a test")
    event_id: int | None = Field(description="which of the job's events")
    status: DeliveryStatus
    attempts: int = Field(description="that have come to an end")
    last_status: int | None = Field(description="status of the response to the last attempt")
    last_error: DeliveryError | None = Field(
        description="why there was none: refused, the address is not public; webhook_disabled, it was no longer to be sent"
    )
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class DeliveryList(BaseModel):
    """A page of deliveries, the newest first. `next` is the `after` of the next page; null on the last one."""

    data: list[DeliveryView]
    next: str | None


def to_webhook_view(endpoint: Endpoint) -> WebhookView:
    return WebhookView.model_validate(endpoint, from_attributes=True)


def show_secret(endpoint: Endpoint) -> WebhookWithSecret:
    return WebhookWithSecret(**to_webhook_view(endpoint).model_dump(), secret=endpoint.secret.get_secret_value())


def to_delivery_view(delivery: Delivery) -> DeliveryView:
    return DeliveryView.model_validate(delivery, from_attributes=True)
