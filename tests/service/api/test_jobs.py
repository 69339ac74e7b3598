"""/v1/jobs: pages and filters, waiting, cancelling, deleting, retrying."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from compressor.errors import OutOfMemory
from service.jobs.job import JobInput, new_job
from service.jobs.states import TERMINAL, Status
from service.storage.keys import checkpoint_key, input_key, input_prefix, job_prefix
from tests.service.api.live import LiveService
from tests.service.api.sample_files import MODEL, PARQUET_FILE
from tests.service.storage.objects import put_bytes


def insert_queued(service: LiveService) -> str:
    job = new_job(
        config={"seed": 3}, inputs={"model": JobInput(key="k", bytes=3, sha256="0" * 64), "dataset": JobInput(ref="builtin:digits")}
    )
    service.jobs.insert(job)
    return job.id


def test_pages_follow_each_other_newest_first(service: LiveService) -> None:
    inserted = [insert_queued(service) for _ in range(7)]
    collected: list[str] = []
    after: str | None = None
    for _ in range(20):
        page = service.client.get("/v1/jobs", params={"limit": 3} | ({"after": after} if after else {})).json()
        collected += [job["id"] for job in page["data"]]
        after = page["next"]
        if after is None:
            break
    assert collected == sorted(collected, reverse=True)
    assert len(set(collected)) == len(collected)
    assert set(inserted) <= set(collected)


def test_a_full_last_page_has_no_next(service: LiveService) -> None:
    insert_queued(service)
    total = len(service.client.get("/v1/jobs", params={"limit": 100}).json()["data"])
    page = service.client.get("/v1/jobs", params={"limit": total}).json()
    assert (len(page["data"]), page["next"]) == (total, None)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x"])
def test_a_wrong_limit_is_a_problem(service: LiveService, query: str) -> None:
    response = service.client.get(f"/v1/jobs?{query}")
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (422, "invalid_request", "limit")


def test_a_failed_job_is_a_200_with_the_problem_inside(service: LiveService) -> None:
    problem = OutOfMemory("The trainer was killed.", suggestion="Lower batch_size.").to_problem()
    job = new_job(config={}, inputs={"dataset": JobInput(ref="builtin:digits")}).model_copy(
        update={"status": Status.FAILED, "error": problem}
    )
    service.jobs.insert(job)
    response = service.client.get(f"/v1/jobs/{job.id}")
    assert response.status_code == 200
    assert response.json()["status"] == "failed"
    assert response.json()["error"] == problem.model_dump()


def test_nothing_of_the_workers_inner_life_is_shown(service: LiveService) -> None:
    shown = service.client.get(f"/v1/jobs/{insert_queued(service)}").json()
    assert set(shown) & {"fence", "lease_until", "home", "process", "log_tail", "max_attempts"} == set()
    assert "key" not in shown["inputs"]["model"]


def test_a_queued_job_is_cancelled_at_once_and_again_without_harm(service: LiveService) -> None:
    job_id = insert_queued(service)
    for _ in range(2):
        response = service.client.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    assert service.client.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_job_cancelled_while_it_waits_keeps_its_inputs_alone(service: LiveService) -> None:
    files = {"model": ("model.onnx", MODEL), "dataset": ("rows.parquet", PARQUET_FILE)}
    kept, cancelled = (service.client.post("/v1/jobs", files=files).json()["id"] for _ in range(2))
    # What an attempt had saved before the service was stopped.
    put_bytes(service.store, checkpoint_key(cancelled, 1), b"checkpoint")
    for _ in range(2):
        assert service.client.post(f"/v1/jobs/{cancelled}/cancel").json()["status"] == "cancelled"
        assert service.store.list(job_prefix(cancelled)) == [
            f"{input_prefix(cancelled)}/{name}" for name in ("dataset.parquet", "model.onnx")
        ]
    assert len(service.store.list(job_prefix(kept))) == 2


def test_a_running_job_is_asked_to_stop(service: LiveService) -> None:
    job_id = insert_queued(service)
    claimed = None
    while claimed is None or claimed.id != job_id:
        claimed = service.jobs.claim_next(60, home="h", process="p")
        assert claimed is not None
    response = service.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (response.status_code, response.json()["status"], response.json()["cancel_requested"]) == (202, "cancelling", True)


@pytest.mark.parametrize("status", sorted(TERMINAL - {Status.CANCELLED}))
def test_an_ended_job_cannot_be_cancelled(service: LiveService, status: Status) -> None:
    job = service.insert_finished(status, {})
    response = service.client.post(f"/v1/jobs/{job.id}/cancel")
    assert (response.status_code, response.json()["code"]) == (409, "job_already_finished")
    assert service.client.get(f"/v1/jobs/{job.id}").json()["status"] == status


@pytest.mark.parametrize("path", ["", "/artifacts", "/artifacts/x", "/report"])
def test_an_unknown_job_is_a_404(service: LiveService, path: str) -> None:
    response = service.client.get(f"/v1/jobs/job_none{path}")
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (404, "job_not_found", "job_id")


def run_to_its_end(service: LiveService, job_id: str, status: Status) -> None:
    """What a dispatcher and a runner do."""
    claimed = None
    while claimed is None or claimed.id != job_id:
        claimed = service.jobs.claim_next(600, home="h", process="p")
        assert claimed is not None
    assert service.jobs.finish(job_id, claimed.fence, status)


def test_metadata_are_kept_shown_and_filtered_by(service: LiveService) -> None:
    pairs = {f"key{n}.a:b/c-d_{'x' * 40}"[:64]: "ü" * 512 for n in range(15)} | {"run": "run & 7"}
    files = {"model": ("model.onnx", MODEL), "dataset": ("rows.parquet", PARQUET_FILE)}
    job = service.client.post("/v1/jobs", files=files, data={"metadata": json.dumps(pairs)}).json()
    assert job["metadata"] == pairs
    queued = insert_queued(service)
    found = service.client.get("/v1/jobs", params={"metadata[run]": "run & 7"}).json()
    assert [each["id"] for each in found["data"]] == [job["id"]]
    key = next(iter(pairs))
    both = service.client.get("/v1/jobs", params={"metadata[run]": "run & 7", f"metadata[{key}]": "other"}).json()
    assert both == {"data": [], "next": None}
    newest = service.client.get("/v1/jobs", params=[("status", "queued"), ("status", "failed"), ("kind", "compress"), ("limit", 1)]).json()
    assert ([each["id"] for each in newest["data"]], newest["next"]) == ([queued], queued)


def test_a_filter_pages_as_the_whole_list_does(service: LiveService) -> None:
    ids = []
    for status in [Status.FAILED, Status.SUCCEEDED] * 3:
        job = new_job(config={}, inputs={}, metadata={"page": "filter"}).model_copy(update={"status": status})
        service.jobs.insert(job)
        ids += [job.id] if status is Status.FAILED else []
    collected, after = [], {}
    while after is not None:
        page = service.client.get("/v1/jobs", params={"limit": 2, "status": "failed", "metadata[page]": "filter"} | after).json()
        collected += [each["id"] for each in page["data"]]
        after = {"after": page["next"]} if page["next"] else None
    assert collected == ids[::-1]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=done", "status.0"),
        ("kind=prune", "kind"),
        ("metadata[a%22b]=1", 'metadata[a"b]'),
        ("metadata[]=1", "metadata[]"),
    ],
)
def test_a_filter_that_no_job_can_pass_is_a_problem(service: LiveService, query: str, param: str) -> None:
    response = service.client.get(f"/v1/jobs?{query}")
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (422, "invalid_request", param)


@pytest.mark.parametrize("asked", [{"params": {"wait": "30"}}, {"headers": {"Prefer": "respond-async, wait=30"}}])
def test_a_long_poll_ends_when_the_job_does(service: LiveService, asked: dict[str, Any]) -> None:
    job_id = insert_queued(service)
    with ThreadPoolExecutor() as pool:
        began = time.monotonic()
        answer = pool.submit(service.client.get, f"/v1/jobs/{job_id}", **asked)
        time.sleep(0.5)
        # A change of status is no end.
        run_to_its_end(service, job_id, Status.FAILED)
        response = answer.result()
    assert (response.status_code, response.json()["status"]) == (200, "failed")
    assert response.headers.get("preference-applied") == ("wait=30" if "headers" in asked else None)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("prefer", "query", "applied"),
    [
        ("wait=1", "", "wait=1"),
        ('foo; bar="x", WAIT="1"', "", "wait=1"),
        ("wait=0", "", "wait=0"),
        ("wait=50", "wait=1", None),
        ("wait=-1", "", None),
        ("wait=1.5", "", None),
        ("await=1", "", None),
        ("wait", "", None),
    ],
)
def test_a_preference_is_echoed_where_it_was_followed(service: LiveService, prefer: str, query: str, applied: str | None) -> None:
    job_id = insert_queued(service)
    began = time.monotonic()
    response = service.client.get(f"/v1/jobs/{job_id}?{query}", headers={"Prefer": prefer})
    assert (response.status_code, response.json()["status"], response.headers.get("preference-applied")) == (200, "queued", applied)
    assert (time.monotonic() - began >= 1) == (applied == "wait=1" or "wait=1" in query)


def test_a_preference_is_capped(service: LiveService) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {})
    response = service.client.get(f"/v1/jobs/{job.id}", headers=[("Prefer", "respond-async"), ("Prefer", "wait=999999")])
    assert response.headers["preference-applied"] == "wait=60"


@pytest.mark.parametrize("wait", ["61", "-1", "x", "1.5"])
def test_a_wrong_wait_is_a_problem(service: LiveService, wait: str) -> None:
    response = service.client.get(f"/v1/jobs/{insert_queued(service)}?wait={wait}")
    assert (response.status_code, response.json()["param"]) == (422, "wait")


def test_a_job_deleted_meanwhile_ends_the_long_poll(service: LiveService) -> None:
    job_id = insert_queued(service)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(service.client.get, f"/v1/jobs/{job_id}?wait=30")
        time.sleep(0.2)
        service.client.post(f"/v1/jobs/{job_id}/cancel")
        service.client.delete(f"/v1/jobs/{job_id}")
        # Either what it was at the end, or that it is no more.
        assert answer.result().status_code in {200, 404}


async def ask_raw(port: int, path: str) -> str:
    """The status in the answer. httpx would take longer over two hundred connections than the service does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    status: str = json.loads(answer.partition(b"\r\n\r\n")[2])["status"]
    return status


def test_two_hundred_wait_while_others_are_served(service: LiveService) -> None:
    """Many more than there are threads for requests: 40."""
    job_id = insert_queued(service)

    async def wait_all() -> list[str]:
        waiting = [asyncio.create_task(ask_raw(service.port, f"/v1/jobs/{job_id}?wait=60")) for _ in range(200)]
        await asyncio.sleep(3)
        began = time.monotonic()
        assert await ask_raw(service.port, f"/v1/jobs/{job_id}") == "queued"
        assert time.monotonic() - began < 5
        assert threading.active_count() < 100
        await asyncio.to_thread(service.jobs.request_cancel, job_id)
        return await asyncio.wait_for(asyncio.gather(*waiting), 20)

    assert asyncio.run(wait_all()) == ["cancelled"] * 200


def test_a_job_is_deleted_with_its_files(service: LiveService) -> None:
    job = service.insert_finished(Status.SUCCEEDED, {"model.onnx": b"small"})
    put_bytes(service.store, input_key(job.id, "model", ".onnx"), MODEL)
    response = service.client.delete(f"/v1/jobs/{job.id}")
    assert (response.status_code, response.content) == (204, b"")
    assert [name for name in service.left_behind() if job.id in name] == []
    for again in (service.client.delete, service.client.get):
        assert again(f"/v1/jobs/{job.id}").json()["code"] == "job_not_found"


def test_a_parent_is_kept_while_a_selection_reads_it(service: LiveService) -> None:
    parent = service.insert_finished(Status.SUCCEEDED, {"curve.safetensors": b"points"})
    form = {"kind": (None, "select"), "parent_id": (None, parent.id), "config": (None, '{"point": 1}')}
    child = service.client.post("/v1/jobs", files=form).json()
    refused = service.client.delete(f"/v1/jobs/{parent.id}")
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (409, "job_in_use", "2")
    assert service.store.list(job_prefix(parent.id)) != []
    service.client.post(child["links"]["cancel"])
    assert service.client.delete(f"/v1/jobs/{parent.id}").status_code == 204
    gone = service.client.post(child["links"]["retry"])
    assert (gone.status_code, gone.json()["code"]) == (422, "parent_not_found")


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.FAILED_GATE])
def test_a_retry_is_a_new_job_with_the_same_inputs(service: LiveService, status: Status) -> None:
    files = {"model": ("my.onnx", MODEL), "dataset": ("rows.parquet", PARQUET_FILE)}
    form = {"config": '{"seed": 7}', "metadata": '{"a": "b"}'}
    first = service.client.post("/v1/jobs", files=files, data=form).json()
    if status is Status.CANCELLED:
        service.client.post(first["links"]["cancel"])
    else:
        run_to_its_end(service, first["id"], status)
    response = service.client.post(first["links"]["retry"])
    assert response.status_code == 202, response.text
    again = response.json()
    assert (response.headers["location"], again["retry_of"], again["status"]) == (f"/v1/jobs/{again['id']}", first["id"], "queued")
    for name in ("kind", "config", "metadata", "inputs", "parent_id"):
        assert again[name] == first[name]
    before = service.client.get(f"/v1/jobs/{first['id']}").json()
    assert (before["status"], before["retry_of"]) == (status, None)
    # Either can go without the other.
    assert service.client.delete(f"/v1/jobs/{first['id']}").status_code == 204
    row = service.jobs.get(again["id"])
    assert row is not None
    for name, data in (("model", MODEL), ("dataset", PARQUET_FILE)):
        assert (service.settings.store_root / str(row.inputs[name].key)).read_bytes() == data


def test_a_retry_without_the_files_is_refused_and_leaves_nothing(service: LiveService) -> None:
    job = service.insert_finished(Status.FAILED, {})
    before = service.left_behind()
    response = service.client.post(f"/v1/jobs/{job.id}/retry")
    assert (response.status_code, response.json()["code"]) == (410, "inputs_gone")
    assert service.left_behind() == before
