"""/v1/jobs/{job_id}/events over real HTTP: pages, and streams as a browser reads them."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from compressor.protocol import Progress
from service.api import events
from service.jobs.events.event import metrics_event
from service.jobs.job import new_job
from service.jobs.states import Status
from tests.acceptance.served import served
from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL

STREAM = {"Accept": "text/event-stream"}


def begin(service: LiveService) -> tuple[str, int]:
    """A job in the hands of a runner, and its fence."""
    job = new_job(config={}, inputs={})
    service.jobs.insert(job)
    while (claimed := service.jobs.claim_next(600, home="h", process="p")) and claimed.id != job.id:
        pass
    assert claimed is not None
    return job.id, claimed.fence


def report(service: LiveService, job_id: str, fence: int, *steps: int) -> None:
    for step in steps:
        progress = Progress(phase="fit", progress=step / 1000, metrics={"step": step})
        assert service.jobs.update_progress(job_id, fence, progress, "", [metrics_event(progress)])


@dataclass(frozen=True)
class Received:
    id: int | None
    type: str
    data: dict[str, Any]


def read_stream(response: httpx.Response) -> Iterator[Received]:
    """The events of a stream by the rules of the HTML standard; comments are left out."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if not line:
            if "data" in fields:
                yield Received(int(fields["id"]) if "id" in fields else None, fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
            continue
        name, _, value = line.partition(":")
        fields[name] = value.removeprefix(" ")


def test_pages_follow_each_other_from_the_oldest_on(service: LiveService) -> None:
    job_id, fence = begin(service)
    report(service, job_id, fence, *range(8))
    collected: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = service.client.get(f"/v1/jobs/{job_id}/events", params={"after": after, "limit": 3}).json()
        collected, after = collected + page["data"], page["next"]
    assert [event["id"] for event in collected] == list(range(1, 11))
    assert [event["type"] for event in collected] == ["status"] * 2 + ["metrics"] * 8
    assert collected[-1]["data"] == {"phase": "fit", "progress": 0.007, "metrics": {"step": 7.0}}
    assert set(collected[0]) == {"id", "created_at", "level", "type", "message", "data"}
    assert service.client.get(f"/v1/jobs/{job_id}").json()["links"]["events"] == f"/v1/jobs/{job_id}/events"
    assert service.client.get(f"/v1/jobs/{job_id}/events?after=10").json() == {"data": [], "next": None}


def test_a_stream_brings_what_was_and_what_comes_and_ends_with_the_job(service: LiveService) -> None:
    job_id, fence = begin(service)
    report(service, job_id, fence, 1)
    with service.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        stream = read_stream(response)
        assert [next(stream).id for _ in range(3)] == [1, 2, 3]
        report(service, job_id, fence, 2, 3)
        assert [(event.id, event.type, event.data["data"]["metrics"]) for event in (next(stream), next(stream))] == [
            (4, "metrics", {"step": 2.0}),
            (5, "metrics", {"step": 3.0}),
        ]
        assert service.jobs.finish(job_id, fence, Status.SUCCEEDED, verdict="small")
        status, end = list(stream)
    assert (status.id, status.type, status.data["message"], status.data["data"]) == (6, "status", "small", {"status": "succeeded"})
    assert (end.id, end.type, end.data) == (None, "end", {"status": "succeeded"})
    page = service.client.get(f"/v1/jobs/{job_id}/events?after=5").json()["data"]
    assert page == [status.data]


def test_a_stream_goes_on_where_it_broke(service: LiveService) -> None:
    job_id, fence = begin(service)
    seen: list[int | None] = []
    headers = STREAM
    for round_ in range(4):
        report(service, job_id, fence, *range(5))
        # The address stays the one that the browser was given.
        with service.client.stream("GET", f"/v1/jobs/{job_id}/events?after=1", headers=headers) as response:
            stream = read_stream(response)
            seen += [next(stream).id for _ in range(3 + round_)]
        headers = STREAM | {"Last-Event-ID": str(seen[-1])}
    assert service.jobs.finish(job_id, fence, Status.FAILED)
    rest = list(read_stream(service.client.get(f"/v1/jobs/{job_id}/events", headers=headers)))
    seen += [event.id for event in rest]
    assert seen == [*range(2, 24), None]
    assert rest[-1].type == "end"


def test_who_has_read_to_the_end_is_told_to_stop(service: LiveService) -> None:
    job_id, fence = begin(service)
    assert service.jobs.finish(job_id, fence, Status.SUCCEEDED)
    for last_id in ("3", "4"):
        response = service.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM | {"Last-Event-ID": last_id})
        assert (response.status_code, response.content) == (204, b"")
    # Whoever comes new gets it all.
    whole = list(read_stream(service.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM)))
    assert [event.type for event in whole] == ["status", "status", "status", "end"]


def test_a_job_without_events_has_an_end(service: LiveService) -> None:
    """One that finished before there were any."""
    job = service.insert_finished(Status.FAILED, {})
    with service.jobs.engine.begin() as connection:
        connection.execute(text("DELETE FROM events WHERE job_id = :id"), {"id": job.id})
        connection.execute(text("UPDATE jobs SET last_event_id = 0 WHERE id = :id"), {"id": job.id})
    stream = list(read_stream(service.client.get(f"/v1/jobs/{job.id}/events", headers=STREAM)))
    assert [(event.type, event.data) for event in stream] == [("end", {"status": "failed"})]


def test_a_deleted_job_ends_the_stream(service: LiveService) -> None:
    job = new_job(config={}, inputs={})
    service.jobs.insert(job)
    with service.client.stream("GET", f"/v1/jobs/{job.id}/events", headers=STREAM) as response:
        stream = read_stream(response)
        next(stream)
        service.jobs.request_cancel(job.id)
        service.jobs.delete(job.id)
        assert len(list(stream)) <= 2


def test_silence_is_filled_with_comments(service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.2)
    job_id, fence = begin(service)
    with service.client.stream("GET", f"/v1/jobs/{job_id}/events?after=2", headers=STREAM) as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(6)] == [": ping", ""] * 3
        assert service.jobs.finish(job_id, fence, Status.SUCCEEDED)
        assert [line for line in lines if line.startswith("event:")] == ["event: status", "event: end"]


@pytest.mark.parametrize(
    ("query", "headers", "param"),
    [
        ("after=-1", {}, "after"),
        ("after=x", STREAM, "after"),
        ("after=99999999999", {}, "after"),
        ("limit=0", {}, "limit"),
        ("limit=1001", {}, "limit"),
        ("", STREAM | {"Last-Event-ID": "x"}, "last-event-id"),
        ("", STREAM | {"Last-Event-ID": "-1"}, "last-event-id"),
    ],
)
def test_a_wrong_place_is_a_problem(service: LiveService, query: str, headers: dict[str, str], param: str) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {})
    response = service.client.get(f"/v1/jobs/{job.id}/events?{query}", headers=headers)
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (422, "invalid_request", param)


@pytest.mark.parametrize("headers", [{}, STREAM])
def test_events_of_no_job_are_a_404(service: LiveService, headers: dict[str, str]) -> None:
    response = service.client.get("/v1/jobs/job_none/events", headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


def test_a_hundred_streams_need_no_thread_each_and_miss_nothing(service: LiveService) -> None:
    job_id, fence = begin(service)

    async def read_one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        head = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.read()
        writer.close()
        return answer

    async def read_all() -> list[bytes]:
        streams = [asyncio.create_task(read_one()) for _ in range(100)]
        for step in range(5):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(report, service, job_id, fence, step)
        assert threading.active_count() < 100
        began = time.monotonic()
        assert service.client.get("/livez").status_code == 200
        assert time.monotonic() - began < 5
        await asyncio.to_thread(service.jobs.finish, job_id, fence, Status.SUCCEEDED)
        return await asyncio.wait_for(asyncio.gather(*streams), 30)

    for answer in asyncio.run(read_all()):
        ids = [int(line.removeprefix(b"id: ")) for line in answer.splitlines() if line.startswith(b"id: ")]
        assert ids == list(range(1, 9))
        assert answer.count(b"event: end") == 1


def test_streams_and_long_polls_do_not_hold_the_service_up_when_it_stops(tmp_path: Path) -> None:
    with served(tmp_path / "home", variables={"BAYESPRESS_WORKERS": "0"}) as service, ThreadPoolExecutor() as pool:
        job = service.client.post("/v1/jobs", files={"kind": (None, "inspect"), "model": ("m.onnx", MODEL)}).json()
        poll = pool.submit(service.client.get, f"/v1/jobs/{job['id']}?wait=60")
        with service.client.stream("GET", job["links"]["events"], headers=STREAM) as response:
            stream = read_stream(response)
            assert next(stream).data["data"] == {"status": "queued"}
            asked = time.monotonic()
            assert service.stop(signal.SIGTERM) == 0
            assert time.monotonic() - asked < 4
            # It has broken off, not ended.
            assert list(stream) == []
        assert poll.result().json()["status"] == "queued"
