"""/v1/webhooks: addresses that are told what becomes of jobs, and what came of telling them."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from service.api.caller import CallerDep
from service.api.dependencies import ServicesDep
from service.api.json_request import body_of, describe_body
from service.api.problems import TooManyWebhooks, WebhookDisabled, WebhookNotFound, WebhookUrlNotAllowed, document
from service.api.webhook_schemas import (
    DeliveryList,
    DeliveryView,
    NewWebhook,
    WebhookChange,
    WebhookList,
    WebhookView,
    WebhookWithSecret,
    show_secret,
    to_delivery_view,
    to_webhook_view,
)
from service.fetching.address import AddressRefused
from service.jobs.clock import utc_now
from service.settings import Settings
from service.webhooks.endpoint import MAX_ENDPOINTS, Endpoint, new_endpoint
from service.webhooks.target import check_target

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

_CREATED: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"description": "Path of the webhook.", "schema": {"type": "string"}}}},
    **document(400, 403, 409, 413, 415, 422),
}
NewWebhookDep = Annotated[NewWebhook, Depends(body_of(NewWebhook, '{"url": "https://example.org/hook"}'))]
WebhookChangeDep = Annotated[WebhookChange, Depends(body_of(WebhookChange, '{"enabled": true}'))]


def get_endpoint(
    services: ServicesDep, caller: CallerDep, webhook_id: Annotated[str, Path(description="the `id` of a webhook")]
) -> Endpoint:
    return _found(services.webhooks.get(caller.owner, webhook_id), webhook_id)


EndpointDep = Annotated[Endpoint, Depends(get_endpoint)]


@router.post("", status_code=201, operation_id="create_webhook", responses=_CREATED, openapi_extra=describe_body(NewWebhook))
def create(asked: NewWebhookDep, services: ServicesDep, caller: CallerDep, response: Response) -> WebhookWithSecret:
    """Tells an address of what happens to jobs from now on. The answer has the secret, which is shown only here."""
    _check_url(asked.url, services.settings)
    endpoint = new_endpoint(caller.owner, asked.url, tuple(dict.fromkeys(asked.events)), asked.description, utc_now())
    if not services.webhooks.insert(endpoint):
        raise TooManyWebhooks(f"There are {MAX_ENDPOINTS} webhooks already.", param="body", suggestion="Delete one, or change one.")
    response.headers["Location"] = f"/v1/webhooks/{endpoint.id}"
    return show_secret(endpoint)


@router.get("", operation_id="list_webhooks", responses=document())
def list_webhooks(services: ServicesDep, caller: CallerDep) -> WebhookList:
    """All webhooks, the oldest first."""
    return WebhookList(data=[to_webhook_view(endpoint) for endpoint in services.webhooks.list_all(caller.owner)])


@router.get("/{webhook_id}", operation_id="get_webhook", responses=document(404, 422))
def get(endpoint: EndpointDep) -> WebhookView:
    """The webhook, without its secret."""
    return to_webhook_view(endpoint)


@router.patch(
    "/{webhook_id}",
    operation_id="change_webhook",
    responses=document(400, 403, 404, 413, 415, 422),
    openapi_extra=describe_body(WebhookChange),
)
def change(change: WebhookChangeDep, endpoint: EndpointDep, services: ServicesDep) -> WebhookView:
    """Changes what the body names. What is still to be sent goes to the new address; to a webhook that is disabled, it goes nowhere."""
    values = change.model_dump(exclude_unset=True)
    if change.url is not None:
        _check_url(change.url, services.settings)
    if change.events is not None:
        values["events"] = list(dict.fromkeys(change.events))
    return to_webhook_view(_found(services.webhooks.change(endpoint.owner, endpoint.id, values), endpoint.id) if values else endpoint)


@router.delete("/{webhook_id}", status_code=204, operation_id="delete_webhook", responses=document(403, 404, 422))
def delete(endpoint: EndpointDep, services: ServicesDep) -> None:
    """Removes the webhook and its deliveries; what is still to be sent is not sent."""
    services.webhooks.delete(endpoint.owner, endpoint.id)


@router.post("/{webhook_id}/rotate-secret", operation_id="rotate_webhook_secret", responses=document(403, 404, 422))
def rotate_secret(endpoint: EndpointDep, services: ServicesDep) -> WebhookWithSecret:
    """A new secret. For 24 hours messages are signed with the one before as well, so that receivers can change over in between."""
    return show_secret(_found(services.webhooks.rotate(endpoint.owner, endpoint.id), endpoint.id))


@router.post("/{webhook_id}/test", status_code=202, operation_id="test_webhook", responses=document(403, 404, 409, 422))
def test(endpoint: EndpointDep, services: ServicesDep) -> DeliveryView:
    """Queues a message of the type `webhook.test`. What comes of it stands among the deliveries."""
    if not endpoint.enabled:
        raise WebhookDisabled("The webhook is disabled.", param="webhook_id", suggestion='Enable it: PATCH {"enabled": true}.')
    return to_delivery_view(services.deliveries.queue_sample(endpoint))


@router.get("/{webhook_id}/deliveries", operation_id="list_webhook_deliveries", responses=document(404, 422))
def list_deliveries(
    endpoint: EndpointDep,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100, description="Deliveries on a page.")] = 20,
    after: Annotated[str | None, Query(max_length=200, description="The `next` of the page before.")] = None,
) -> DeliveryList:
    """What was sent or is to be sent, the newest first; for 30 days after it has been delivered or given up."""
    found = services.deliveries.page(endpoint.id, limit + 1, after)
    page = found[:limit]
    return DeliveryList(data=[to_delivery_view(delivery) for delivery in page], next=page[-1].id if len(found) > limit else None)


def _found(endpoint: Endpoint | None, webhook_id: str) -> Endpoint:
    if endpoint is None:
        raise WebhookNotFound(f"There is no webhook {webhook_id[:80]!r}.", param="webhook_id", suggestion="GET /v1/webhooks lists them.")
    return endpoint


def _check_url(url: str, settings: Settings) -> None:
    try:
        check_target(url, settings.reference_hosts)
    except AddressRefused as error:
        suggestion = "Name a public https: address, or have its host added to BAYESPRESS_REFERENCE_HOSTS."
        raise WebhookUrlNotAllowed(str(error), param="url", suggestion=suggestion) from None
