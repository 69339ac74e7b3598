"""What is sent to webhooks, for the section `webhooks` of openapi.json."""

from typing import Annotated, Any

from fastapi import APIRouter, Header

from service.webhooks.message import WebhookMessage

router = APIRouter(tags=["webhooks"])


_ANSWERS: dict[int | str, dict[str, Any]] = {
    204: {"description": "Received; so says every 2xx."},
    410: {"description": "Nothing is wanted here any more: the webhook is disabled."},
    "default": {"description": "Sent again later, nine times in three days. Redirects are not followed; Retry-After is obeyed."},
}


@router.post("event", operation_id="receive_event", status_code=204, responses=_ANSWERS)
def event(
    message: WebhookMessage,
    webhook_id: Annotated[str, Header(description="of the message, the same in every attempt: have it once, and again is no news")],
    webhook_timestamp: Annotated[int, Header(description="of the attempt, in seconds since 1970")],
    webhook_signature: Annotated[str, Header(description="`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; perhaps several")],
) -> None:
    """Something has happened to a job; Standard Webhooks 1.0.0. Answer within 15 seconds."""
