"""`Endpoint`: an address of a client that wants to hear of its jobs."""

import secrets
import time
from datetime import datetime, timedelta
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, SecretStr
from typing_extensions import TypeAliasType

from service.jobs.states import TERMINAL
from service.webhooks.signing import new_secret

EventName = TypeAliasType(
    "EventName",
    Literal[
        "job.queued",
        "job.validating",
        "job.running",
        "job.pausing",
        "job.paused",
        "job.cancelling",
        "job.cancelled",
        "job.succeeded",
        "job.failed",
        "job.failed_gate",
    ],
)
# Why an endpoint gets nothing any more: it answered 410, or nothing that was sent in FAILING_AFTER has arrived.
DisabledReason = TypeAliasType("DisabledReason", Literal["gone", "failing"])
EVENT_NAMES: tuple[EventName, ...] = get_args(EventName.__value__)
DEFAULT_EVENTS: tuple[EventName, ...] = tuple(name for name in EVENT_NAMES if name.partition(".")[2] in TERMINAL)
MAX_ENDPOINTS = 20
FAILING_AFTER = timedelta(days=5)
# How long what is sent carries a signature by the secret before as well.
ROTATION = timedelta(hours=24)


class Endpoint(BaseModel):
    """An endpoint as its row stood. The secrets must be readable, since every message is signed with them; no repr shows them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    owner: str
    url: str
    events: tuple[EventName, ...]
    description: str | None = None
    enabled: bool = True
    disabled_reason: DisabledReason | None = None
    secret: SecretStr
    old_secret: SecretStr | None = None
    old_secret_until: datetime | None = None
    # When the first of all attempts failed that nothing has arrived since.
    failing_since: datetime | None = None
    created_at: datetime

    def signing_secrets(self, now: datetime) -> list[str]:
        """The newest first."""
        secrets = [self.secret.get_secret_value()]
        if self.old_secret is not None and self.old_secret_until is not None and now < self.old_secret_until:
            secrets.append(self.old_secret.get_secret_value())
        return secrets


def new_endpoint(owner: str, url: str, events: tuple[EventName, ...], description: str | None, now: datetime) -> Endpoint:
    return Endpoint(
        id=new_id("whk"), owner=owner, url=url, events=events, description=description, secret=SecretStr(new_secret()), created_at=now
    )


def new_id(prefix: str) -> str:
    """Like the ids of jobs: they sort in the order of creation."""
    return f"{prefix}_{time.time_ns():016x}{secrets.token_hex(8)}"
