"""`EventFeed`: pages of events for all streams. Those that wait for the same page get it from one query, as the bytes that they send.

A job's news comes to all of its streams at once. A query for each of them would be a crowd of threads, behind which every other request
waits for the interpreter.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from service.api.schemas import to_event_view
from service.jobs.events.event import Event

PAGE = 200
# More threads would only take turns with each other and with the event loop.
QUERIES_AT_ONCE = 2


class Page(NamedTuple):
    """`last_id` is that of the last event."""

    last_id: int
    frames: bytes


class EventFeed:
    """Belongs to one event loop. `read` gives a job's events after an id, so many at most; it may block."""

    def __init__(self, read: Callable[[str, int, int], Sequence[Event]]) -> None:
        self._read = read
        self._reading: dict[tuple[str, int], asyncio.Task[Page | None]] = {}
        self._turns = asyncio.Semaphore(QUERIES_AT_ONCE)

    async def page(self, job_id: str, after: int) -> Page | None:
        """The events that follow the id `after`, as frames of a stream; None where there are none."""
        key = job_id, after
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(self._read_page(*key), name="event feed")
            reading.add_done_callback(lambda _: self._reading.pop(key))
        # A stream that is given up must not take the page away from the others.
        return await asyncio.shield(reading)

    async def _read_page(self, job_id: str, after: int) -> Page | None:
        async with self._turns:
            return await run_in_threadpool(self._read_frames, job_id, after)

    def _read_frames(self, job_id: str, after: int) -> Page | None:
        events = self._read(job_id, after, PAGE)
        return Page(events[-1].id, b"".join(map(to_frame, events))) if events else None


def to_frame(event: Event) -> bytes:
    view = to_event_view(event)
    return format_sse_event(id=str(view.id), event=view.type, data_str=view.model_dump_json())
