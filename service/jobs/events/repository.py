"""`EventRepository`: all SQL about events. They are written in the transaction of what they tell of, which has locked the job's row.

So the ids of a job have no gaps, and whoever has seen one has nothing before it still to come. The webhooks that want to hear of one are
queued with it.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select

from service.jobs.events.event import Event, NewEvent
from service.jobs.tables import events
from service.webhooks.deliveries.repository import queue_news


class EventRepository:
    """Synchronous; safe to use from several threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, job_id: str, after: int, limit: int) -> list[Event]:
        """The oldest first, from the one that follows the id `after`."""
        columns = [column for column in events.c if column is not events.c.job_id]
        query = select(*columns).where(events.c.job_id == job_id, events.c.id > after).order_by(events.c.id).limit(limit)
        with self._engine.begin() as connection:
            return [Event.model_validate(row._asdict()) for row in connection.execute(query)]


def append_events(connection: Connection, job_id: str, last_id: int, new: Sequence[NewEvent]) -> None:
    """`last_id` is the job's count of events with these in it."""
    if new:
        numbered = list(enumerate(new, last_id - len(new) + 1))
        rows: list[dict[str, Any]] = [{"job_id": job_id, "id": number, **event.model_dump()} for number, event in numbered]
        connection.execute(insert(events), rows)
        queue_news(connection, job_id, numbered)


def delete_events(connection: Connection, job_id: str) -> None:
    connection.execute(delete(events).where(events.c.job_id == job_id))
