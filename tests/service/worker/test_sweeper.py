"""Retention: what goes when its time has come, what stays, and that several may sweep at once."""

import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from compressor.protocol import Kind
from service.jobs.clock import utc_now
from service.jobs.events.repository import EventRepository
from service.jobs.idempotency.repository import IdempotencyRepository
from service.jobs.job import LOCAL, Job, JobInput, new_job
from service.jobs.repository import JobRepository
from service.jobs.states import Status
from service.jobs.uploads.repository import UploadRepository
from service.jobs.uploads.upload import Upload, UploadedFile
from service.settings import Settings
from service.storage import keys
from service.worker.files import sha256
from service.worker.sweeper import Sweeper
from tests.service.storage.objects import put_bytes
from tests.service.worker.workplace import Workplace, small_settings, wait_until

RETAIN_S, IDLE_S = 1000.0, 3600.0


class Time:
    """What time it is on SQLite; files have their own."""

    def __init__(self) -> None:
        self.late_s = 0.0

    def __call__(self) -> datetime:
        return utc_now() + timedelta(seconds=self.late_s)


class Kept:
    """A home with uploads and jobs, and a sweep of it at any time."""

    def __init__(self, workplace: Workplace) -> None:
        self.time = Time()
        self.store = workplace.store
        self.jobs = JobRepository(workplace.engine, self.time)
        self.uploads = UploadRepository(workplace.engine, self.time)
        self.root = workplace.settings.store_root
        self._settings = workplace.settings

    def sweeper(self, **changes: object) -> Sweeper:
        return Sweeper(Settings.model_validate(self._settings.model_dump() | changes), self.jobs, self.time)

    def put(self, receipt: str, data: bytes, part: str = "model") -> UploadedFile:
        key = keys.upload_key(receipt, part, ".onnx")
        put_bytes(self.store, key, data)
        return UploadedFile(key=key, sha256=sha256(self.root / key), bytes=len(data))

    def upload(self, receipt: str, data: bytes, owner: str = "o") -> Upload:
        return self.uploads.keep(owner, "model", {"model": self.put(receipt, data)}, self.store.exists)[0]

    def job(self, status: Status, kind: Kind = "compress", parent_id: str | None = None) -> Job:
        job = new_job(kind=kind, config={}, inputs={}, parent_id=parent_id)
        inputs = {"model": JobInput(key=keys.input_key(job.id, "model", ".onnx"))}
        for key in (inputs["model"].key, keys.artifact_key(job.id, 1, "model.onnx")):
            put_bytes(self.store, str(key), b"model")
        finished_at = self.time() if status in {Status.SUCCEEDED, Status.FAILED} else None
        job = job.model_copy(update={"inputs": inputs, "status": status, "finished_at": finished_at})
        self.jobs.insert(job)
        return job

    def stored(self, prefix: str) -> set[str]:
        return {name for name in self.store.folders(prefix) if any((self.root / prefix / name).iterdir())}

    def age(self, receipt: str, seconds: float) -> None:
        folder = self.root / keys.upload_prefix(receipt)
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (time.time() - seconds,) * 2)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    workplace = Workplace(small_settings(tmp_path / "home", retain_uploads_s=RETAIN_S, upload_idle_s=IDLE_S))
    yield Kept(workplace)
    workplace.engine.dispose()


def test_uploads_go_when_they_were_not_used_for_so_long(kept: Kept) -> None:
    left, used, shared = kept.upload("r1", b"left"), kept.upload("r2", b"used"), kept.upload("r3", b"shared")
    kept.time.late_s = RETAIN_S - 60
    kept.sweeper().sweep()
    assert kept.stored(keys.UPLOADS) == {"r1", "r2", "r3"}
    assert kept.uploads.use("o", used.id) is not None
    kept.uploads.keep("p", "model", dict(shared.files), kept.store.exists)
    kept.time.late_s = RETAIN_S + 60
    for _ in range(2):
        kept.sweeper().sweep()
        assert [kept.uploads.get("o", upload.id) is not None for upload in (left, used, shared)] == [False, True, False]
        # The object of the last one is somebody else's too.
        assert kept.stored(keys.UPLOADS) == {"r2", "r3"}
    kept.time.late_s = 3 * RETAIN_S
    kept.sweeper().sweep()
    assert kept.stored(keys.UPLOADS) == set()


def test_objects_that_no_row_names_go_when_they_are_old(kept: Kept) -> None:
    kept.upload("named", b"named")
    kept.put("orphan", b"orphan")
    kept.put("recent", b"recent")
    kept.put("growing", b"first part")
    kept.put("half", b"first part")
    for receipt in ("named", "orphan", "growing", "half"):
        kept.age(receipt, IDLE_S + 60)
    # A second part is still being written, and one that a killed process left.
    (kept.root / keys.upload_prefix("growing") / "test.npz#1").write_bytes(b"staged")
    staged = kept.root / keys.upload_prefix("half") / "test.npz#1"
    staged.write_bytes(b"staged")
    kept.age("half", IDLE_S + 60)
    for _ in range(2):
        kept.sweeper().sweep()
        assert kept.stored(keys.UPLOADS) == {"named", "recent", "growing"}
    assert not staged.exists()


def test_of_a_request_the_objects_that_have_rows_stay(kept: Kept) -> None:
    """The service was killed after the rows were written, before it could remove what was there already."""
    kept.upload("first", b"a")
    received = {"train": kept.put("second", b"a", "train"), "test": kept.put("second", b"b", "test")}
    dataset, _ = kept.uploads.keep("o", "dataset", received, kept.store.exists)
    kept.age("second", IDLE_S + 60)
    kept.sweeper().sweep()
    assert kept.store.list(keys.UPLOADS) == sorted({file.key for file in dataset.files.values()})
    assert len({file.key for file in dataset.files.values()}) == 2


def test_an_object_that_is_released_while_it_is_sent_anew_takes_nothing_with_it(kept: Kept) -> None:
    old = kept.upload("old", b"a")
    kept.time.late_s = RETAIN_S + 60
    released = kept.uploads.delete("o", old.id, RETAIN_S)
    assert released == [old.files["model"].key]
    # Its row has gone; somebody sends the same bytes before the sweep comes to the object.
    anew = kept.upload("new", b"a", owner="p")
    for key in released:
        kept.store.delete(key)
    kept.sweeper().sweep()
    assert kept.store.list(keys.UPLOADS) == [anew.files["model"].key]


def test_an_upload_that_is_used_after_the_sweep_has_found_it_stays(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = kept.upload("r", b"a")
    kept.time.late_s = RETAIN_S + 60
    sweeper = kept.sweeper()
    find = UploadRepository.unused

    def find_and_use(repository: UploadRepository, unused_s: float) -> list[tuple[str, str]]:
        found = find(repository, unused_s)
        assert kept.uploads.use("o", upload.id) is not None
        return found

    monkeypatch.setattr(UploadRepository, "unused", find_and_use)
    sweeper.sweep()
    assert kept.uploads.get("o", upload.id) is not None
    assert kept.store.exists(upload.files["model"].key)


def test_finished_jobs_are_kept_for_ever_unless_a_policy_says_otherwise(kept: Kept) -> None:
    job = kept.job(Status.SUCCEEDED)
    kept.time.late_s = 10**8
    kept.sweeper().sweep()
    assert kept.jobs.get(job.id) == job
    assert len(kept.store.list(keys.job_prefix(job.id))) == 2


def test_finished_jobs_go_with_their_files_events_and_keys(kept: Kept) -> None:
    old, parent = kept.job(Status.SUCCEEDED), kept.job(Status.SUCCEEDED)
    open_jobs = [kept.job(status) for status in (Status.QUEUED, Status.RUNNING, Status.PAUSED)]
    child = kept.job(Status.QUEUED, "select", parent.id)
    idempotency = IdempotencyRepository(kept.jobs.engine, kept.time)
    idempotency.reserve(LOCAL, "k", old.id, 10**6)
    kept.time.late_s = 500
    recent = kept.job(Status.FAILED)
    kept.time.late_s = 1100
    for _ in range(2):
        kept.sweeper(retain_jobs_s=1000).sweep()
        assert {job.id for job in kept.jobs.list_recent(99)} == {job.id for job in (parent, *open_jobs, child, recent)}
        assert kept.stored(keys.JOBS) == {job.id for job in (parent, *open_jobs, child, recent)}
    assert EventRepository(kept.jobs.engine).page(old.id, 0, 9) == []
    assert idempotency.reserve(LOCAL, "k", "another", 60).job_id == "another"
    # Once nobody reads from it, the parent goes as well.
    kept.jobs.request_cancel(child.id)
    kept.sweeper(retain_jobs_s=1000).sweep()
    assert kept.jobs.get(parent.id) is None
    assert kept.jobs.get(child.id) is not None


def test_a_sweep_that_was_broken_off_is_taken_up_again(kept: Kept) -> None:
    job = kept.job(Status.SUCCEEDED)
    kept.store.delete(str(job.inputs["model"].key))
    kept.time.late_s = 1100
    kept.sweeper(retain_jobs_s=1000).sweep()
    assert (kept.jobs.get(job.id), kept.stored(keys.JOBS)) == (None, set())


def test_one_step_that_fails_does_not_keep_the_others_from_being_taken(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    upload, job = kept.upload("r", b"a"), kept.job(Status.SUCCEEDED)
    kept.time.late_s = RETAIN_S + 60
    with kept.jobs.engine.begin() as connection:
        connection.execute(text("CREATE TRIGGER stop BEFORE DELETE ON uploads BEGIN SELECT RAISE(ABORT, 'no'); END"))
    kept.sweeper(retain_jobs_s=1000).sweep()
    assert [record.message for record in caplog.records] == ["a step of the sweep failed"]
    assert kept.uploads.get("o", upload.id) is not None
    assert kept.store.exists(upload.files["model"].key)
    assert kept.jobs.get(job.id) is None


def test_keys_that_have_expired_are_forgotten(kept: Kept) -> None:
    IdempotencyRepository(kept.jobs.engine, kept.time).reserve(LOCAL, "k", "job", 10)
    kept.time.late_s = 60
    kept.sweeper().sweep()
    with kept.jobs.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM idempotency_keys")).scalar_one() == 0


def test_a_worker_sweeps(tmp_path: Path) -> None:
    workplace = Workplace(small_settings(tmp_path / "home", retain_uploads_s=RETAIN_S))
    kept = Kept(workplace)
    kept.time.late_s = -RETAIN_S - 60
    kept.upload("r", b"a")
    with workplace.dispatcher():
        wait_until(lambda: kept.stored(keys.UPLOADS) == set())
    workplace.engine.dispose()
