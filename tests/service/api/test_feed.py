"""Pages of events that many streams wait for at once."""

import asyncio
import threading
from datetime import UTC, datetime

from service.api.feed import QUERIES_AT_ONCE, EventFeed, Page
from service.jobs.events.event import Event


def event(number: int) -> Event:
    return Event(id=number, created_at=datetime(2026, 1, 1, tzinfo=UTC), level="info", type="message", message="m", data={})


class Reading:
    """Blocks until `go` is set; notes what was asked for, and how many asked at a time. `begun`: so many as may have asked."""

    def __init__(self, events: list[Event]) -> None:
        self.events, self.go, self.begun = events, threading.Event(), threading.Event()
        self.asked: list[tuple[str, int]] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, job_id: str, after: int, limit: int) -> list[Event]:
        with self._lock:
            self.asked.append((job_id, after))
            self._now += 1
            self.most = max(self.most, self._now)
            if len(self.asked) == QUERIES_AT_ONCE:
                self.begun.set()
        assert self.go.wait(10)
        with self._lock:
            self._now -= 1
        return [event for event in self.events if event.id > after][:limit]


def test_streams_that_wait_for_the_same_page_share_one_query_and_one_that_is_given_up_takes_nothing_away() -> None:
    async def run(read: Reading) -> list[Page | None]:
        feed = EventFeed(read)
        waiting = [asyncio.create_task(feed.page("job", 1)) for _ in range(100)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        read.go.set()
        return await asyncio.gather(*waiting[1:])

    read = Reading([event(1), event(2), event(3)])
    pages = asyncio.run(run(read))
    assert read.asked == [("job", 1)]
    first = pages[0]
    assert first is not None
    assert pages == [first] * 99
    assert first.last_id == 3
    assert first.frames.count(b"id: ") == 2


def test_few_queries_run_at_a_time() -> None:
    async def run(read: Reading) -> None:
        feed = EventFeed(read)
        waiting = [asyncio.create_task(feed.page(f"job {number}", 0)) for number in range(20)]
        await asyncio.to_thread(read.begun.wait, 10)
        read.go.set()
        await asyncio.gather(*waiting)

    read = Reading([event(1)])
    asyncio.run(run(read))
    assert (len(read.asked), read.most) == (20, QUERIES_AT_ONCE)


def test_news_is_read_anew_and_a_failure_reaches_all_who_waited_and_nobody_after_them() -> None:
    async def run() -> None:
        found: list[Event] = []

        def read(_job_id: str, after: int, _limit: int) -> list[Event]:
            if after == 7:
                raise OSError("away")
            return found

        feed = EventFeed(read)
        assert await feed.page("job", 0) is None
        found.append(event(1))
        page = await feed.page("job", 0)
        assert page is not None
        assert page.last_id == 1
        for _ in range(2):
            failures = await asyncio.gather(feed.page("job", 7), feed.page("job", 7), return_exceptions=True)
            assert [str(failure) for failure in failures] == ["away", "away"]

    asyncio.run(run())
