"""A job whose files are elsewhere: fetched before the trainer starts, once, while the lease is held; and what ends it."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.fetching.fetcher import Fetcher
from service.jobs.events.repository import EventRepository
from service.jobs.job import Job, JobInput, new_job
from service.jobs.states import Status
from service.worker.references import LostJob, fetch_references
from tests.service.api.sample_files import MODEL, NPZ_FILE
from tests.service.fetching.stub import Answer, Request, Stub, answering
from tests.service.worker.workplace import Workplace, small_settings

# A machine that is busy may take a second for the first renewal.
REMOTE: dict[str, Any] = {"reference_schemes": ("https",), "reference_hosts": ("127.0.0.1",), "renew_s": 3.0}


@contextmanager
def new_workplace(home: Path, **values: Any) -> Iterator[Workplace]:
    workplace = Workplace(small_settings(home, **(REMOTE | values)))
    yield workplace
    workplace.engine.dispose()
    workplace.wait_until_empty()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    home = tmp_path_factory.mktemp("served") / "home"
    with new_workplace(home) as workplace, workplace.dispatcher():
        yield workplace


def submit(workplace: Workplace, url: str, *, sha256: str | None = None, max_attempts: int = 3, **inputs: JobInput) -> str:
    """A job whose rows are at `url`; its model is the script of a trainer that has little to do."""
    job_id = workplace.submit(steps=1)
    job = workplace.get(job_id)
    rows = {"dataset": JobInput(ref=url, sha256=sha256)} | inputs
    referring = new_job(config={}, inputs=job.inputs | rows, max_attempts=max_attempts)
    workplace.repository.insert(referring)
    workplace.wait_until_finished(job_id)
    return referring.id


def messages(workplace: Workplace, job: Job) -> list[str]:
    return [event.message for event in EventRepository(workplace.engine).page(job.id, 0, 99) if event.type == "message"]


def test_rows_are_fetched_stored_and_recorded(served: Workplace) -> None:
    digest = hashlib.sha256(NPZ_FILE).hexdigest()
    with answering(lambda _request: (200, {}, NPZ_FILE)) as stub:
        job = served.wait_until_finished(submit(served, f"{stub.url}/rows?signature=secret", sha256=digest))
    assert (job.status, job.attempts, job.error) == (Status.SUCCEEDED, 1, None)
    given = job.inputs["dataset"]
    assert given == JobInput(
        key=f"jobs/{job.id}/inputs/dataset.1.npz", ref=f"{stub.url}/rows?signature=secret", bytes=len(NPZ_FILE), sha256=digest
    )
    assert given.key in served.stored(job.id)
    told = messages(served, job)
    assert told == [f"Fetches the dataset from {stub.url}/rows?….", f"The dataset has {len(NPZ_FILE):,} bytes, sha256 {digest}."]


@pytest.mark.parametrize(
    ("answer", "code", "attempts", "requests"),
    [
        ((404, {}, b""), "reference_unreachable", 1, 1),
        ((302, {"Location": "http://169.254.169.254/latest/"}, b""), "reference_refused", 1, 1),
        ((200, {"Content-Length": str(10**13)}, b""), "reference_too_large", 1, 1),
        ((200, {}, MODEL), "invalid_dataset", 1, 1),
        ((503, {"Retry-After": "0"}, b""), "reference_unreachable", 2, 6),
    ],
    ids=["missing", "redirect", "large", "no rows", "unavailable"],
)
def test_what_cannot_be_fetched_ends_the_job_with_a_problem(
    served: Workplace, answer: Answer, code: str, attempts: int, requests: int
) -> None:
    with answering(lambda _request: answer) as stub:
        job = served.wait_until_finished(submit(served, f"{stub.url}/rows", max_attempts=2))
    assert job.error is not None
    assert (job.status, job.error.code, job.error.param, job.error.status) == (Status.FAILED, code, "dataset_ref", 422)
    assert job.error.suggestion
    assert (job.attempts, len(stub.requests)) == (attempts, requests)
    assert "169.254" not in job.error.detail
    assert job.inputs["dataset"].key is None


def test_other_bytes_than_were_asked_for_fail_the_job(served: Workplace) -> None:
    with answering(lambda _request: (200, {}, NPZ_FILE)) as stub:
        job = served.wait_until_finished(submit(served, stub.url, sha256="0" * 64))
    assert job.error is not None
    assert (job.status, job.error.code, job.inputs["dataset"].key) == (Status.FAILED, "digest_mismatch", None)


class Holding:
    """An answer that holds its second half back until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, _request: Request) -> Answer:
        return 200, {"Content-Length": str(len(NPZ_FILE))}, self.body()

    def body(self) -> Iterator[bytes]:
        yield NPZ_FILE[:100]
        self.begun.set()
        self.go_on.wait(30)
        yield NPZ_FILE[100:]


def test_the_lease_is_held_and_told_of_while_a_file_comes(tmp_path: Path) -> None:
    holding = Holding()
    with new_workplace(tmp_path / "home", lease_s=4.0, renew_s=1.5) as workplace, answering(holding) as stub, workplace.dispatcher():
        job_id = submit(workplace, stub.url)
        assert holding.begun.wait(20)
        began = workplace.get(job_id).lease_until
        assert began is not None
        workplace.wait_for(job_id, lambda job: job.lease_until is not None and (job.lease_until - began).total_seconds() > 1.0)
        assert messages(workplace, workplace.get(job_id)) == [f"Fetches the dataset from {stub.url}."]
        holding.go_on.set()
        job = workplace.wait_until_finished(job_id)
    assert (job.status, job.fence, len(stub.requests)) == (Status.SUCCEEDED, 1, 1)


def test_a_job_is_cancelled_while_a_file_comes(served: Workplace) -> None:
    holding = Holding()
    with answering(holding) as stub:
        job_id = submit(served, stub.url)
        assert holding.begun.wait(20)
        served.repository.request_cancel(job_id)
        job = served.wait_until_finished(job_id, timeout_s=5)
        holding.go_on.set()
    assert (job.status, job.inputs["dataset"].key) == (Status.CANCELLED, None)


def test_another_attempt_takes_the_bytes_of_the_first(tmp_path: Path) -> None:
    """The runner is killed while its second file comes: the first is there, and is not asked for again though it has changed."""
    holding = Holding()
    answers = iter([NPZ_FILE, b"changed"])

    def answer(request: Request) -> Answer:
        return (200, {}, next(answers)) if request.path == "/rows" else holding(request)

    with new_workplace(tmp_path / "home") as workplace, answering(answer) as stub, workplace.dispatcher():
        job_id = submit(workplace, f"{stub.url}/rows", test=JobInput(ref=f"{stub.url}/test"))
        assert holding.begun.wait(20)
        assert workplace.get(job_id).inputs["dataset"].key == f"jobs/{job_id}/inputs/dataset.1.npz"
        workplace.runners()[0].kill()
        holding.go_on.set()
        job = workplace.wait_until_finished(job_id)
    assert (job.status, job.attempts) == (Status.SUCCEEDED, 2)
    assert {name: given.key for name, given in job.inputs.items() if given.ref} == {
        "dataset": f"jobs/{job_id}/inputs/dataset.1.npz",
        "test": f"jobs/{job_id}/inputs/test.2.npz",
    }
    assert [request.path for request in stub.requests] == ["/rows", "/test", "/test"]


def test_who_has_lost_the_job_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    with new_workplace(tmp_path / "home") as workplace, answering(lambda _request: (200, {}, NPZ_FILE)) as stub:
        lost = fetch_of_a_lost_job(workplace, stub, tmp_path)
        assert [key for key in workplace.stored(lost.id) if "dataset" in key] == []
        assert workplace.get(lost.id).inputs["dataset"].key is None


def fetch_of_a_lost_job(workplace: Workplace, stub: Stub, folder: Path) -> Job:
    workplace.repository.insert(new_job(config={}, inputs={"dataset": JobInput(ref=stub.url)}))
    job = workplace.repository.claim_next(-1, home="home", process="p")
    assert job is not None
    assert workplace.repository.claim_next(60, home="home", process="q") is not None
    fetcher = Fetcher(workplace.settings)
    with pytest.raises(LostJob):
        asyncio.run(fetch_references(job, workplace.store, folder, fetcher, workplace.repository, lambda _message: None))
    return job
