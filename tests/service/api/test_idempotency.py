"""Idempotency-Key over real HTTP: one job for one request, however often and wherever it is sent."""

import os
import signal
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from service.jobs.engine import create_engine
from service.jobs.states import Status
from tests.acceptance.served import served
from tests.postgres import postgres_server
from tests.service.api.live import LiveService, service_settings, serving
from tests.service.api.sample_files import MODEL, NPZ_FILE, PARQUET_FILE
from tests.service.api.test_submission import wait_until

FILES = {"model": ("m.onnx", MODEL), "dataset": ("d.parquet", PARQUET_FILE)}
DATA = {"config": '{"seed": 7}', "metadata": '{"a": "1"}'}


def send(service: LiveService, key: str, files: dict[str, Any] = FILES, data: dict[str, str] = DATA) -> httpx.Response:
    return service.client.post("/v1/jobs", files=files, data=data, headers={"Idempotency-Key": key})


def new_key() -> str:
    return str(uuid.uuid4())


def stored(service: LiveService) -> list[str]:
    return service.left_behind()


def test_the_same_request_gives_the_first_job(service: LiveService) -> None:
    key = new_key()
    first = send(service, key)
    after = stored(service)
    again = send(service, key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["retry-after"] == first.headers["retry-after"]
    # Other bytes, the same parts: another boundary and order, another spelling of the config and what is the default, another file name.
    spelled = {"metadata": '{ "a":"1"}', "kind": "compress", "config": '{"max_seconds":null,  "seed": 7}'}
    same = send(service, key, {"dataset": ("other", PARQUET_FILE), "model": ("name", MODEL)}, spelled)
    assert same.json()["id"] == first.json()["id"]
    assert stored(service) == after


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.FAILED])
def test_it_gives_the_first_job_whatever_its_status(service: LiveService, status: Status) -> None:
    key = new_key()
    first = send(service, key).json()
    if status is Status.CANCELLED:
        service.client.post(first["links"]["cancel"])
    else:
        while (claimed := service.jobs.claim_next(600, home="h", process="p")) and claimed.id != first["id"]:
            pass
        assert claimed is not None
        assert service.jobs.finish(first["id"], claimed.fence, status)
    again = send(service, key)
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (202, first["id"], status)


OTHERS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "config": (FILES, DATA | {"config": '{"seed": 8}'}),
    "no config": (FILES, {"metadata": DATA["metadata"]}),
    "metadata": (FILES, DATA | {"metadata": '{"a": "2"}'}),
    "rows": (FILES | {"dataset": ("d.parquet", NPZ_FILE)}, DATA),
    "another part": (FILES | {"test": ("d.parquet", PARQUET_FILE)}, DATA),
    "a reference": ({"model": FILES["model"]}, DATA | {"dataset_ref": "builtin:digits"}),
    "kind": ({"model": FILES["model"]}, DATA | {"kind": "inspect"}),
}


def test_other_parts_are_refused_and_leave_nothing(service: LiveService) -> None:
    key = new_key()
    first = send(service, key).json()
    after = stored(service)
    for name, (files, data) in OTHERS.items():
        response = send(service, key, files, data)
        assert (response.status_code, response.json()["code"], response.json()["param"]) == (
            422,
            "idempotency_key_reused",
            "Idempotency-Key",
        ), name
        assert first["id"] in response.json()["detail"]
    assert stored(service) == after


def test_a_refused_request_leaves_the_key_free(service: LiveService) -> None:
    key = new_key()
    assert send(service, key, FILES | {"model": ("m", b"text" * 99)}).json()["code"] == "invalid_model"
    assert send(service, key).status_code == 202


def test_a_deleted_job_leaves_the_key_free(service: LiveService) -> None:
    key = new_key()
    first = send(service, key).json()
    service.client.post(first["links"]["cancel"])
    assert service.client.delete(first["links"]["self"]).status_code == 204
    assert send(service, key).json()["id"] != first["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "caf\u00e9"])
def test_a_key_that_is_none_is_refused(service: LiveService, key: str) -> None:
    response = service.client.post("/v1/jobs", files=FILES, headers={"Idempotency-Key": key.encode("latin-1")})
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (422, "invalid_request", "idempotency-key")


def test_without_a_key_every_request_is_a_job(service: LiveService) -> None:
    ids = {service.client.post("/v1/jobs", files=FILES).json()["id"] for _ in range(2)}
    assert len(ids) == 2


def begin_upload(port: int, key: str) -> socket.socket:
    """A connection on which the beginning of a request with this key has been sent."""
    head = "POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    part = '--b\r\nContent-Disposition: form-data; name="config"\r\n\r\n{'
    connection.sendall(f"{head}Idempotency-Key: {key}\r\n\r\n{part}".encode())
    return connection


def wait_until_reserved(database: str, key: str) -> None:
    engine = create_engine(database)
    query = text("SELECT count(*) FROM idempotency_keys WHERE key = :key")

    def is_reserved() -> bool:
        with engine.connect() as connection:
            return connection.execute(query, {"key": key}).scalar_one() == 1

    wait_until(is_reserved)
    engine.dispose()


def test_while_the_first_is_received_others_wait(service: LiveService) -> None:
    key = new_key()
    before = stored(service)
    with begin_upload(service.port, key):
        wait_until_reserved(service.settings.database, key)
        response = send(service, key)
        assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (409, "idempotency_key_in_use", "2")
        assert stored(service) == before
        assert send(service, new_key()).status_code == 202
    # It has gone away without a job.
    wait_until(lambda: send(service, key).status_code == 202)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def two_services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LiveService]]:
    """Two applications over one database and one store."""
    with ExitStack() as stack:
        settings = service_settings(tmp_path_factory.mktemp("two"))
        if request.param == "postgresql":
            settings = settings.model_copy(update={"database_url": stack.enter_context(postgres_server())})
        services = [stack.enter_context(serving(settings)) for _ in range(2)]
        for live in services:
            # FastAPI makes its routes at the first request and mutes a warning meanwhile, which two threads cannot do at once.
            live.client.get("/no/such/path")
        yield services


def test_one_job_of_many_requests_at_several_services_at_once(two_services: list[LiveService]) -> None:
    key, before = new_key(), {job.id for job in two_services[0].jobs.list_recent(100)}

    def send_until_taken(number: int) -> str:
        while (response := send(two_services[number % 2], key)).status_code == 409:
            assert response.json()["code"] == "idempotency_key_in_use"
        job_id: str = response.json()["id"]
        return job_id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(send_until_taken, range(16)))
    assert ids == {job.id for job in two_services[0].jobs.list_recent(100)} - before
    assert len(ids) == 1
    # One set of files.
    assert len([name for name in stored(two_services[0]) if "/inputs/" in name and any(job_id in name for job_id in ids)]) == 2


def test_a_receiver_that_was_slow_for_longer_than_its_lease_gives_way(two_services: list[LiveService]) -> None:
    key = new_key()
    with begin_upload(two_services[0].port, key):
        wait_until_reserved(two_services[0].settings.database, key)
        assert send(two_services[1], key).status_code == 409
        engine = create_engine(two_services[0].settings.database)
        with engine.begin() as connection:
            connection.execute(text("UPDATE idempotency_keys SET expires_at = '2020-01-01 00:00:00.000000' WHERE key = :key"), {"key": key})
        engine.dispose()
        first = send(two_services[1], key)
        assert first.status_code == 202
    assert send(two_services[0], key).json()["id"] == first.json()["id"]


def test_a_key_outlives_the_service_and_a_receiver_that_was_killed_does_not_keep_it(tmp_path: Path) -> None:
    variables = {"BAYESPRESS_WORKERS": "0", "BAYESPRESS_LEASE_S": "3", "BAYESPRESS_RENEW_S": "1"}
    done, killed = new_key(), new_key()

    def post(client: httpx.Client, key: str) -> httpx.Response:
        return client.post("/v1/jobs", files=FILES, data=DATA, headers={"Idempotency-Key": key})

    with served(tmp_path / "home", variables=variables) as service:
        first = post(service.client, done).json()
        with begin_upload(int(service.client.base_url.port or 0), killed):
            wait_until_reserved(f"sqlite:///{tmp_path / 'home' / 'bayespress.sqlite3'}", killed)
            os.kill(service.process.pid, signal.SIGKILL)
            service.process.wait(10)
    with served(tmp_path / "home", variables=variables) as service:
        assert post(service.client, done).json() == first
        wait_until(lambda: post(service.client, killed).status_code == 202)
