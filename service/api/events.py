"""/v1/jobs/{job_id}/events: what has happened, as JSON pages or, by Accept, as a stream of server-sent events.

A stream ends after the event `end`, whose data say how the job ended. A browser asks again then, with the last id; it gets a 204, by which
the standard (HTML, 9.2) lets it stop. Where the service stops, or the connection breaks, it goes on after that id. No thread waits.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import JobDep, Services, ServicesDep
from service.api.problems import document
from service.api.schemas import EventList, to_event_view
from service.jobs.repository import Mark
from service.jobs.states import TERMINAL

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["jobs"])

HEARTBEAT_S = 15.0
MAX_ID = 2**31 - 1
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": EventList, "content": {EventSourceResponse.media_type: {"schema": {"type": "string"}}}},
    204: {"description": "The stream has been read to its end."},
    **document(404, 422),
}


@router.get("", operation_id="list_events", responses=RESPONSES, response_model=EventList)
async def list_events(
    request: Request,
    job: JobDep,
    services: ServicesDep,
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="Only events after this id.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Events on a page; a stream has no limit.")] = 100,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_ID, description="Of a stream: goes on after this id.")] = None,
) -> EventList | Response:
    """The events of a job, the oldest first. With `Accept: text/event-stream` also those to come, until the job has finished."""
    if EventSourceResponse.media_type in request.headers.get("accept", "").lower():
        return await _open_stream(job.id, after, last_event_id, services)
    events = await run_in_threadpool(services.events.page, job.id, after, limit + 1)
    page = events[:limit]
    return EventList(data=[to_event_view(event) for event in page], next=page[-1].id if len(events) > limit else None)


async def _open_stream(job_id: str, after: int, last_event_id: int | None, services: Services) -> Response:
    mark = (await run_in_threadpool(services.jobs.marks, [job_id])).get(job_id)
    if mark is None or (mark.status in TERMINAL and last_event_id is not None and last_event_id >= mark.last_event_id):
        return Response(status_code=204)
    # A browser repeats the address that it was given, so the header is the newer of the two.
    return EventSourceResponse(_stream(job_id, mark, after if last_event_id is None else last_event_id, services), headers=_HEADERS)


async def _stream(job_id: str, mark: Mark | None, after: int, services: Services) -> AsyncIterator[bytes]:
    while mark is not None:
        while after < mark.last_event_id and (page := await services.feed.page(job_id, after)):
            yield page.frames
            after = page.last_id
        if mark.status in TERMINAL:
            yield format_sse_event(event="end", data_str=f'{{"status":"{mark.status.value}"}}')
            return
        seen = max(after, mark.last_event_id)
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                mark = await services.watcher.wait_for(job_id, partial(_is_news, seen))
        except TimeoutError:
            yield KEEPALIVE_COMMENT


def _is_news(seen: int, mark: Mark) -> bool:
    return mark.last_event_id > seen or mark.status in TERMINAL
