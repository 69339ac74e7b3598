"""`Delivery`: one message to one endpoint. Its id is the `webhook-id`, the same in every attempt."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeAliasType

from service.webhooks.endpoint import Endpoint

DeliveryStatus = TypeAliasType("DeliveryStatus", Literal["pending", "delivered", "failed"])
# Why there was no response, or none was asked for.
DeliveryError = TypeAliasType("DeliveryError", Literal["refused", "timeout", "connection_failed", "webhook_disabled"])


class Delivery(BaseModel):
    """A delivery as its row stood. `last_status` and `last_error` are of the last attempt; one of them at most is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    owner: str
    webhook_id: str
    job_id: str | None
    event_id: int | None
    type: str
    body: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime | None
    last_status: int | None
    last_error: DeliveryError | None
    created_at: datetime
    finished_at: datetime | None
    # As with jobs: who sends it holds the lease, and a result under an older fence is dropped.
    claimed_until: datetime | None
    fence: int


class Claim(BaseModel):
    """A delivery that is ours to make, and where to."""

    model_config = ConfigDict(frozen=True)

    delivery: Delivery
    endpoint: Endpoint


class Outcome(BaseModel):
    """What came of an attempt: the status of the response, or why there was none."""

    model_config = ConfigDict(frozen=True)

    status: int | None = None
    error: DeliveryError | None = None
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300
