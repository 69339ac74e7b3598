"""Two owners side by side: what is another's is to each the same as what does not exist. The operator sees both."""

import json
from collections.abc import Iterator

import httpx
import pytest

from service.jobs.job import Job, JobInput, new_job
from service.jobs.states import Status
from service.keys.key import Scope
from tests.service.api.live import LiveService, service_settings, serving
from tests.service.api.sample_files import MODEL
from tests.service.api.test_authentication import bearer
from tests.service.api.test_problems import ROUTES, assert_problem

FORM = {"model": ("m.onnx", MODEL), "dataset_ref": (None, b"builtin:digits")}
OF_A_JOB = [route for route in ROUTES if "{job_id}" in route[1]]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    with serving(service_settings(tmp_path_factory.mktemp("owners")).model_copy(update={"require_keys": True})) as service:
        yield service


def client_of(live: LiveService, owner: str, scope: Scope = Scope.SUBMIT) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=30, headers=bearer(live.make_key(owner, scope))) as client:
        yield client


@pytest.fixture(scope="module")
def alice(live: LiveService) -> Iterator[httpx.Client]:
    yield from client_of(live, "alice")


@pytest.fixture(scope="module")
def bob(live: LiveService) -> Iterator[httpx.Client]:
    yield from client_of(live, "bob")


@pytest.fixture(scope="module")
def admin(live: LiveService) -> Iterator[httpx.Client]:
    yield from client_of(live, "operator", Scope.ADMIN)


def ids(client: httpx.Client, **params: str) -> set[str]:
    return {job["id"] for job in client.get("/v1/jobs", params={"limit": "100", **params}).json()["data"]}


def jobs_of_alice(live: LiveService) -> list[Job]:
    """One in each state that some route looks at."""
    jobs = [live.insert_finished(status, {"model.onnx": b"m", "report.json": b"{}"}, owner="alice") for status in Status]
    assert {job.owner for job in jobs} == {"alice"}
    return jobs


def without_id(response: httpx.Response, job_id: str) -> str:
    problem = response.json()
    del problem["request_id"]
    return json.dumps(problem).replace(job_id, "ID")


@pytest.mark.parametrize(("method", "path"), OF_A_JOB)
def test_anothers_job_is_as_one_that_does_not_exist(live: LiveService, bob: httpx.Client, method: str, path: str) -> None:
    unknown = new_job(config={}, inputs={}).id
    nothing = bob.request(method, path.format(job_id=unknown, name="model.onnx"))
    assert_problem(nothing, 404, "job_not_found")
    for job in jobs_of_alice(live):
        for headers in ({}, {"Accept": "text/event-stream"}, {"Prefer": "wait=1"}, {"If-None-Match": "*"}, {"Range": "bytes=0-0"}):
            answer = bob.request(method, path.format(job_id=job.id, name="model.onnx"), headers=headers)
            assert answer.status_code == 404
            assert without_id(answer, job.id) == without_id(nothing, unknown)
            names = {"content-type", "content-length"}
            assert {name: answer.headers[name] for name in names} == {name: nothing.headers[name] for name in names}
        assert live.jobs.get(job.id) == job
        assert len(live.events_of(job.id)) == 1
    if method == "GET" and path.endswith(("{name}", ".zip", "/report")):
        assert bob.head(path.format(job_id=job.id, name="model.onnx")).status_code == 404


def test_each_lists_their_own_and_an_admin_all(live: LiveService, alice: httpx.Client, bob: httpx.Client, admin: httpx.Client) -> None:
    of_alice = alice.post("/v1/jobs", files=FORM | {"metadata": (None, b'{"p": "q"}')}).json()
    of_bob = bob.post("/compress", files=FORM | {"metadata": (None, b'{"p": "q"}')}).json()
    local = live.insert_finished(Status.FAILED, {}).id
    assert (of_alice["owner"], of_bob["owner"]) == ("alice", "bob")
    for params in ({}, {"metadata[p]": "q"}, {"status": "queued"}, {"kind": "compress"}):
        assert of_alice["id"] in ids(alice, **params)
        assert not {of_bob["id"], local} & ids(alice, **params)
        assert of_alice["id"] not in ids(bob, **params)
    assert {of_alice["id"], of_bob["id"], local} <= ids(admin)
    page = alice.get("/v1/jobs", params={"after": of_bob["id"], "limit": 1}).json()
    assert {job["owner"] for job in page["data"]} <= {"alice"}
    assert admin.get(f"/v1/jobs/{of_alice['id']}").json() == alice.get(f"/v1/jobs/{of_alice['id']}").json()
    assert admin.post(of_bob["links"]["cancel"]).json()["status"] == "cancelled"


def test_nobody_selects_from_anothers_job(live: LiveService, alice: httpx.Client, bob: httpx.Client, admin: httpx.Client) -> None:
    parent = live.insert_finished(Status.SUCCEEDED, {"curve.safetensors": b"points"}, owner="alice")
    running = live.insert_finished(Status.RUNNING, {}, owner="alice")
    unknown = new_job(config={}, inputs={}).id

    def select(client: httpx.Client, job_id: str, **params: str) -> httpx.Response:
        body = {"kind": "select", "parent_id": job_id, "config": {"point": 0}}
        return client.post("/v1/jobs", json=body, params=params)

    nothing = select(bob, unknown)
    for job in (parent, running):
        for params in ({}, {"validate_only": "true"}):
            refused = select(bob, job.id, **params)
            assert_problem(refused, 422, "parent_not_found")
            assert without_id(refused, job.id) == without_id(nothing, unknown)
    own = select(alice, parent.id)
    assert (own.status_code, own.json()["owner"]) == (202, "alice")
    assert select(admin, parent.id).status_code == 202


def test_an_idempotency_key_is_its_owners(alice: httpx.Client, bob: httpx.Client) -> None:
    key = {"Idempotency-Key": "the same one"[:3]}
    first = alice.post("/v1/jobs", files=FORM, headers=key).json()
    other = bob.post("/v1/jobs", files=FORM | {"config": (None, b'{"seed": 3}')}, headers=key)
    assert other.status_code == 202
    assert (other.json()["owner"], other.json()["id"] == first["id"]) == ("bob", False)
    for client, job in ((alice, first), (bob, other.json())):
        form = FORM if client is alice else FORM | {"config": (None, b'{"seed": 3}')}
        assert client.post("/v1/jobs", files=form, headers=key).json()["id"] == job["id"]
    reused = bob.post("/v1/jobs", files=FORM, headers=key)
    assert_problem(reused, 422, "idempotency_key_reused")
    assert first["id"] not in reused.text


def test_a_retry_belongs_to_the_owner_of_the_job_whoever_asks(live: LiveService, alice: httpx.Client, admin: httpx.Client) -> None:
    for client in (alice, admin):
        job = live.insert_finished(Status.FAILED, {}, owner="alice")
        inputs = {"model": JobInput(ref="file:/x"), "dataset": JobInput(ref="builtin:digits")}
        limited = job.model_copy(update={"id": new_job(config={}, inputs={}).id, "inputs": inputs, "config": {}, "max_running_jobs": 1})
        live.jobs.insert(limited)
        answer = client.post(f"/v1/jobs/{limited.id}/retry")
        assert (answer.status_code, answer.json()["owner"]) == (202, "alice"), answer.text
        again = live.jobs.get(answer.json()["id"])
        assert again is not None
        # An operator who helps does not lift the owner's limit.
        assert again.max_running_jobs == (None if client is alice else 1)
        assert answer.json()["id"] in ids(alice)


def test_two_keys_of_one_owner_see_the_same(live: LiveService, alice: httpx.Client) -> None:
    job = live.insert_finished(Status.SUCCEEDED, {"model.onnx": b"m"}, owner="alice")
    for client in client_of(live, "alice", Scope.READ):
        assert client.get(f"/v1/jobs/{job.id}/artifacts/model.onnx").content == b"m"
        assert ids(client) == ids(alice)
        assert_problem(client.delete(f"/v1/jobs/{job.id}"), 403, "scope_too_small")
