"""`DeliveryRepository`: all SQL about deliveries. They are queued in the transaction of what they tell of, and claimed like jobs."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, insert, or_, select, update

from service.jobs.clock import DatabaseClock, utc_now
from service.jobs.events.event import NewEvent
from service.jobs.tables import PENDING, jobs, webhooks
from service.jobs.tables import webhook_deliveries as deliveries
from service.webhooks.deliveries.delivery import Claim, Delivery, Outcome
from service.webhooks.endpoint import FAILING_AFTER, DisabledReason, Endpoint, new_id
from service.webhooks.message import WebhookMessage, job_message, sample_message

KEPT_S = 30 * 86400.0
SWEPT_AT_ONCE = 1000
GONE = 410
_ENDED = {"next_attempt_at": None, "claimed_until": None}


class DeliveryRepository:
    """Synchronous; safe to use from several threads and processes. `clock` counts on SQLite only, PostgreSQL has its own."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._now = DatabaseClock(engine, clock)

    def page(self, webhook_id: str, limit: int, after: str | None = None) -> list[Delivery]:
        """The newest first; `after` is the last id of the page before."""
        query = select(deliveries).where(deliveries.c.webhook_id == webhook_id).order_by(deliveries.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(deliveries.c.id < after)
        with self._engine.begin() as connection:
            return [Delivery.model_validate(row._asdict()) for row in connection.execute(query)]

    def queue_sample(self, endpoint: Endpoint) -> Delivery:
        row = _to_row(endpoint.id, endpoint.owner, sample_message(endpoint.id))
        with self._engine.begin() as connection:
            queued = connection.execute(insert(deliveries).values(row | {"next_attempt_at": self._now()}).returning(deliveries)).one()
        return Delivery.model_validate(queued._asdict())

    def claim_next(self, lease_s: float, busy: Collection[str] = ()) -> Claim | None:
        """The delivery that has been due for longest and is not to one of the `busy` webhooks, now leased under a new fence."""
        other = deliveries.alias()
        candidate = (
            select(other.c.id)
            .where(PENDING, self._due(other.c), other.c.webhook_id.not_in(busy))
            .order_by(other.c.next_attempt_at, other.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(deliveries)
            .where(deliveries.c.id == candidate, self._due(deliveries.c))
            .values(fence=deliveries.c.fence + 1, claimed_until=self._now(lease_s))
            .returning(deliveries)
        )
        while True:
            with self._engine.begin() as connection:
                row = connection.execute(statement).one_or_none()
                if row is None:
                    return None
                wanted = select(webhooks).where(webhooks.c.id == row.webhook_id, webhooks.c.enabled)
                endpoint = connection.execute(wanted).one_or_none()
                if endpoint is None:
                    # The webhook went away, or was disabled, in the moment in which this was queued.
                    connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(_disabled(self._now())))
            if endpoint is not None:
                # Read when the claim stands: a row that cannot be read must not come first again.
                return Claim(delivery=Delivery.model_validate(row._asdict()), endpoint=Endpoint.model_validate(endpoint._asdict()))

    def release(self, claim: Claim) -> bool:
        """Gives a delivery back that nothing is known of: it is due at once."""
        with self._engine.begin() as connection:
            return connection.execute(update(deliveries).where(_held(claim)).values(claimed_until=None)).rowcount == 1

    def settle(self, claim: Claim, outcome: Outcome, retry_in_s: float | None) -> bool:
        """Writes what came of an attempt; False where it is no longer ours. Without `retry_in_s` it was the last."""
        with self._engine.connect() as connection, connection.begin() as transaction:
            self._note_health(connection, claim.endpoint.id, outcome)
            statement = update(deliveries).where(_held(claim)).values(self._values(outcome, retry_in_s))
            if connection.execute(statement).rowcount != 1:
                transaction.rollback()
                return False
            if outcome.status == GONE:
                self._disable(connection, claim.endpoint.id, "gone")
            elif not outcome.delivered:
                since = webhooks.c.failing_since <= self._now(-FAILING_AFTER.total_seconds())
                self._disable(connection, claim.endpoint.id, "failing", since)
        return True

    def sweep(self) -> int:
        """Forgets what was finished long ago."""
        # In one order and past what others have locked, so that two sweeps never wait for each other.
        old = (
            select(deliveries.c.id)
            .where(deliveries.c.finished_at < self._now(-KEPT_S))
            .order_by(deliveries.c.finished_at, deliveries.c.id)
            .limit(SWEPT_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        with self._engine.begin() as connection:
            return connection.execute(delete(deliveries).where(deliveries.c.id.in_(old))).rowcount

    def _values(self, outcome: Outcome, retry_in_s: float | None) -> dict[str, Any]:
        values = {"attempts": deliveries.c.attempts + 1, "last_status": outcome.status, "last_error": outcome.error, "claimed_until": None}
        if not outcome.delivered and retry_in_s is not None:
            return values | {"next_attempt_at": self._now(retry_in_s)}
        return values | _ENDED | {"status": "delivered" if outcome.delivered else "failed", "finished_at": self._now()}

    def _note_health(self, connection: Connection, webhook_id: str, outcome: Outcome) -> None:
        ours = webhooks.c.id == webhook_id
        if outcome.delivered:
            statement = update(webhooks).where(ours, webhooks.c.failing_since.is_not(None)).values(failing_since=None)
        else:
            statement = update(webhooks).where(ours).values(failing_since=func.coalesce(webhooks.c.failing_since, self._now()))
        connection.execute(statement)

    def _disable(self, connection: Connection, webhook_id: str, reason: DisabledReason, *conditions: ColumnElement[bool]) -> None:
        statement = update(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.enabled, *conditions)
        if connection.execute(statement.values(enabled=False, disabled_reason=reason)).rowcount:
            end_pending(connection, webhook_id, self._now())

    def _due(self, columns: Any) -> ColumnElement[bool]:
        free = or_(columns.claimed_until.is_(None), columns.claimed_until < self._now())
        return and_(columns.status == "pending", columns.next_attempt_at <= self._now(), free)


def queue_news(connection: Connection, job_id: str, numbered: Sequence[tuple[int, NewEvent]]) -> None:
    """What of a job's new events changes its status goes to the webhooks of its owner that want it."""
    news = [(number, event) for number, event in numbered if event.type == "status"]
    if not news:
        return
    of_the_owner = webhooks.join(jobs, webhooks.c.owner == jobs.c.owner)
    columns = select(webhooks.c.id, webhooks.c.owner, webhooks.c.events, jobs.c.kind).select_from(of_the_owner)
    wanting = columns.where(jobs.c.id == job_id, webhooks.c.enabled)
    rows = []
    for webhook_id, owner, events, kind in connection.execute(wanting):
        messages = [(number, job_message(job_id, kind, number, event)) for number, event in news]
        rows += [_to_row(webhook_id, owner, message, job_id, number) for number, message in messages if message.type in events]
    if rows:
        connection.execute(insert(deliveries).values(next_attempt_at=DatabaseClock(connection.engine)()), rows)


def end_pending(connection: Connection, webhook_id: str, now: ColumnElement[datetime]) -> None:
    """What was still to be sent to a webhook that is disabled is not sent later."""
    statement = update(deliveries).where(deliveries.c.webhook_id == webhook_id, deliveries.c.status == "pending")
    connection.execute(statement.values(_disabled(now)))


def _disabled(now: ColumnElement[datetime]) -> dict[str, Any]:
    return {**_ENDED, "status": "failed", "last_status": None, "last_error": "webhook_disabled", "finished_at": now}


def _to_row(webhook_id: str, owner: str, message: WebhookMessage, job_id: str | None = None, event_id: int | None = None) -> dict[str, Any]:
    return {
        "id": new_id("msg"),
        "owner": owner,
        "webhook_id": webhook_id,
        "job_id": job_id,
        "event_id": event_id,
        "type": message.type,
        "body": message.model_dump_json(),
        "status": "pending",
        "created_at": utc_now(),
    }


def _held(claim: Claim) -> ColumnElement[bool]:
    return and_(deliveries.c.id == claim.delivery.id, deliveries.c.fence == claim.delivery.fence, deliveries.c.status == "pending")
