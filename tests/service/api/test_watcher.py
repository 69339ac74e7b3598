"""Those who wait for a job are told one after the other, and others get their turn in between."""

import asyncio
from collections.abc import Collection

from service.api.watcher import WOKEN_AT_ONCE, JobWatcher
from service.jobs.repository import Mark
from service.jobs.states import Status

WAITING = 10 * WOKEN_AT_ONCE


def test_a_crowd_is_told_in_groups() -> None:
    async def run() -> tuple[list[Mark | None], int]:
        mark = Mark(Status.SUCCEEDED, 7)

        def read(job_ids: Collection[str]) -> dict[str, Mark]:
            return dict.fromkeys(job_ids, mark)

        watcher, told, turns = JobWatcher(read), 0, 0

        async def wait() -> Mark | None:
            nonlocal told
            found = await watcher.wait_for("job", lambda _: True)
            told += 1
            return found

        async def look() -> None:
            nonlocal turns
            while told < WAITING:
                turns += told > 0
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        marks = await asyncio.gather(*(wait() for _ in range(WAITING)))
        await looking
        return list(marks), turns

    marks, turns = asyncio.run(run())
    assert marks == [Mark(Status.SUCCEEDED, 7)] * WAITING
    assert turns >= 9


def test_who_is_gone_is_passed_over_and_a_job_that_is_gone_is_none() -> None:
    async def run() -> Mark | None:
        watcher = JobWatcher(lambda _: {})
        given_up = asyncio.create_task(watcher.wait_for("job", lambda _: True))
        waiting = asyncio.create_task(watcher.wait_for("job", lambda _: True))
        await asyncio.sleep(0)
        given_up.cancel()
        return await waiting

    assert asyncio.run(run()) is None
