"""`EndpointRepository`: all SQL about endpoints. Whoever writes to an endpoint and to its deliveries does so in this order."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, delete, func, insert, select, update

from service.jobs.clock import DatabaseClock, utc_now
from service.jobs.tables import webhook_deliveries, webhooks
from service.webhooks.deliveries.repository import end_pending
from service.webhooks.endpoint import MAX_ENDPOINTS, ROTATION, Endpoint
from service.webhooks.signing import new_secret


class EndpointRepository:
    """Synchronous; safe to use from several threads and processes."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._now = DatabaseClock(engine, clock)

    def insert(self, endpoint: Endpoint) -> bool:
        """False where the owner has as many as it may have."""
        values = endpoint.model_dump(exclude={"secret", "old_secret"}) | {"secret": endpoint.secret.get_secret_value()}
        with self._engine.connect() as connection, connection.begin() as transaction:
            connection.execute(insert(webhooks).values(values | {"events": list(endpoint.events)}))
            count = select(func.count()).select_from(webhooks).where(webhooks.c.owner == endpoint.owner)
            if connection.execute(count).scalar_one() > MAX_ENDPOINTS:
                transaction.rollback()
                return False
        return True

    def list_all(self, owner: str) -> list[Endpoint]:
        """The oldest first."""
        with self._engine.begin() as connection:
            return [
                to_endpoint(row) for row in connection.execute(select(webhooks).where(webhooks.c.owner == owner).order_by(webhooks.c.id))
            ]

    def get(self, owner: str, webhook_id: str) -> Endpoint | None:
        with self._engine.begin() as connection:
            row = connection.execute(select(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.owner == owner)).one_or_none()
        return to_endpoint(row) if row else None

    def change(self, owner: str, webhook_id: str, values: Mapping[str, Any]) -> Endpoint | None:
        """Writes some of url, events, description and enabled. What went wrong is forgotten; disabling ends what is still to be sent."""
        forgotten: dict[str, Any] = {"failing_since": None} if {"url", "enabled"} & values.keys() else {}
        if "enabled" in values:
            forgotten["disabled_reason"] = None
        return self._write(owner, webhook_id, ends_pending=values.get("enabled") is False, **values, **forgotten)

    def rotate(self, owner: str, webhook_id: str) -> Endpoint | None:
        """A new secret. The one before signs as well for a while, one that is older no longer."""
        until = self._now(ROTATION.total_seconds())
        return self._write(owner, webhook_id, secret=new_secret(), old_secret=webhooks.c.secret, old_secret_until=until)

    def delete(self, owner: str, webhook_id: str) -> bool:
        with self._engine.begin() as connection:
            gone = connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.owner == owner)).rowcount == 1
            if gone:
                connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id))
        return gone

    def _write(self, owner: str, webhook_id: str, *, ends_pending: bool = False, **values: Any) -> Endpoint | None:
        statement = update(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.owner == owner).values(**values).returning(webhooks)
        with self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
            if row is not None and ends_pending:
                end_pending(connection, webhook_id, self._now())
        return to_endpoint(row) if row else None


def to_endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint.model_validate(row._asdict())
