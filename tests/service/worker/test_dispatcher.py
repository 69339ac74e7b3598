"""Dispatcher, runners and a fake trainer as real processes: crashes, cancelling, shutdown, takeover."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select, update

from service.jobs.events.repository import EventRepository
from service.jobs.job import JobInput, new_job
from service.jobs.states import Status
from service.jobs.tables import jobs
from service.worker.home import lock_home
from tests.service.worker.workplace import FAKE_TRAINER, Workplace, small_settings, wait_until


@contextmanager
def new_workplace(home: Path, **values: Any) -> Iterator[Workplace]:
    workplace = Workplace(small_settings(home, **values))
    yield workplace
    workplace.engine.dispose()
    workplace.wait_until_empty()


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    with new_workplace(tmp_path / "home") as workplace:
        yield workplace


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """A workplace whose dispatcher runs through all the tests that do it no harm."""
    home = tmp_path_factory.mktemp("served") / "home"
    with new_workplace(home, workers=3, trainer_memory_bytes=512 * 1024**2) as workplace, workplace.dispatcher():
        yield workplace


def test_a_job_succeeds(served: Workplace) -> None:
    done = served.wait_until_finished(served.submit())
    assert (done.status, done.verdict, done.progress, done.attempts, done.fence) == ("succeeded", "made smaller", 1.0, 1, 1)
    assert (done.phase, done.metrics) == ("fit", {"step": 3.0})
    assert [artifact.name for artifact in done.artifacts] == ["model.onnx", "report.json"]
    content = served.artifact(done, "model.onnx")
    assert content == b"began at step 0"
    # The checkpoint has gone, what the client sent has not.
    wait_until(lambda: set(served.stored(done.id)) == {done.inputs["model"].key, *(item.key for item in done.artifacts)})
    assert (done.artifacts[0].bytes, done.artifacts[0].sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_run_tells_what_happens(served: Workplace) -> None:
    job_id = served.submit(steps=3, at={"1": "garbage"})
    served.wait_until_finished(job_id)
    events = EventRepository(served.engine).page(job_id, 0, 100)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert [event.data["status"] for event in events if event.type == "status"] == ["queued", "validating", "running", "succeeded"]
    assert [event.data["phase"] for event in events if event.type == "phase"] == ["validate", "fit"]
    # Every one of them, also where several come between two writes; what is not finite is left out.
    assert [event.data["metrics"] for event in events if event.type == "metrics"] == [{"step": step} for step in (1.0, 2.0, 3.0)]
    assert events[-1].type == "status"


def test_failures_next_to_each_other_and_the_service_goes_on(served: Workplace) -> None:
    scripts: list[dict[str, Any]] = [{"at": {"1": "fail"}}, {"gate": True}, {"at": {"1": "exhaust_memory"}}, {"at": {"1": "crash"}}, {}]
    jobs = [served.submit(**script) for script in scripts]
    client, gate, memory, crash, good = (served.wait_until_finished(job_id) for job_id in jobs)
    assert client.error is not None
    assert (client.status, client.error.code, client.error.param, client.attempts) == ("failed", "missing_labels", "label_column", 1)
    assert gate.error is not None
    assert (gate.status, gate.error.code, len(gate.artifacts)) == ("failed_gate", "gate_not_met", 2)
    assert memory.error is not None
    assert (memory.status, memory.error.code, memory.attempts) == ("failed", "out_of_memory", 1)
    assert crash.error is not None
    assert (crash.status, crash.error.code, crash.attempts) == ("failed", "trainer_crashed", 3)
    assert "something went wrong here" in crash.error.detail
    assert good.status is Status.SUCCEEDED
    for job in (client, memory, crash):
        wait_until(lambda job=job: served.stored(job.id) == [job.inputs["model"].key])


def test_slots_are_filled_and_not_exceeded(served: Workplace) -> None:
    jobs = [served.submit(step_s=0.3) for _ in range(4)]
    wait_until(lambda: len(served.runners()) == 3)
    finished = [served.wait_until_finished(job_id) for job_id in jobs]
    assert {(job.status, job.attempts) for job in finished} == {(Status.SUCCEEDED, 1)}


def test_cancel_ends_a_running_job_at_once(served: Workplace) -> None:
    job_id = served.submit(steps=2, step_s=60, at={"0": "ignore_sigterm"})
    wait_until(served.trainers)
    asked = time.monotonic()
    cancelling = served.repository.request_cancel(job_id)
    assert cancelling is not None
    assert cancelling.status is Status.CANCELLING
    job = served.wait_until_finished(job_id)
    assert (job.status, job.artifacts, job.error) == (Status.CANCELLED, [], None)
    assert served.trainers() == []
    wait_until(lambda: served.stored(job_id) == [job.inputs["model"].key])
    assert time.monotonic() - asked < 3


def test_a_reference_that_has_become_a_link_out_of_its_root_fails_the_job(tmp_path: Path) -> None:
    root = (tmp_path / "root").resolve()
    root.mkdir()
    (tmp_path / "secret.npz").write_bytes(b"secret")
    with new_workplace(tmp_path / "home", data_roots=(root,)) as workplace, workplace.dispatcher():
        (root / "rows.npz").write_bytes(b"rows")
        reference = f"file:{root}/rows.npz"
        assert workplace.wait_until_finished(workplace.submit_files(b"{}", dataset=reference)).status is Status.SUCCEEDED
        (root / "rows.npz").unlink()
        (root / "rows.npz").symlink_to(tmp_path / "secret.npz")
        job = workplace.wait_until_finished(workplace.submit_files(b"{}", dataset=reference))
        assert job.error is not None
        assert (job.status, job.error.code, job.error.param, job.attempts) == (Status.FAILED, "dataset_ref_not_allowed", "dataset_ref", 1)
        assert "secret" not in job.error.detail


def test_a_model_is_read_where_it_lies_and_only_under_its_root(tmp_path: Path) -> None:
    root = (tmp_path / "root").resolve()
    root.mkdir()
    (tmp_path / "secret.onnx").write_bytes(b"{}")
    with new_workplace(tmp_path / "home", data_roots=(root,)) as workplace, workplace.dispatcher():
        (root / "model.onnx").write_bytes(b'{"steps": 1}')
        inputs = {"model": JobInput(ref=f"file:{root}/model.onnx"), "dataset": JobInput(ref="builtin:digits")}
        taken, refused = (new_job(config={}, inputs=inputs) for _ in range(2))
        workplace.repository.insert(taken)
        done = workplace.wait_until_finished(taken.id)
        assert (done.status, done.metrics) == (Status.SUCCEEDED, {"step": 1.0})
        (root / "model.onnx").unlink()
        (root / "model.onnx").symlink_to(tmp_path / "secret.onnx")
        workplace.repository.insert(refused)
        failed = workplace.wait_until_finished(refused.id)
        assert failed.error is not None
        assert (failed.status, failed.error.code, failed.error.param) == (Status.FAILED, "model_ref_not_allowed", "model_ref")


def test_a_damaged_input_fails_the_job(served: Workplace) -> None:
    job_id = served.submit(steps=2)
    other = served.get(job_id)
    damaged = other.model_copy(
        update={"id": f"{job_id}d", "inputs": other.inputs | {"model": other.inputs["model"].model_copy(update={"sha256": "00"})}}
    )
    served.repository.insert(damaged)
    job = served.wait_until_finished(damaged.id)
    assert job.error is not None
    assert (job.status, job.error.code, job.error.param) == (Status.FAILED, "internal_error", "model")
    served.wait_until_finished(job_id)


def test_a_runner_that_dies_again_and_again_fails_the_job(served: Workplace) -> None:
    job_id = served.submit(max_attempts=2, log="the last line", steps=2, step_s=60)
    for fence in (1, 2):
        wait_until(lambda fence=fence: served.get(job_id).fence == fence and served.get(job_id).log_tail and served.runners())
        served.runners()[0].kill()
    job = served.wait_until_finished(job_id)
    assert job.error is not None
    assert (job.status, job.attempts, job.error.code) == (Status.FAILED, 2, "trainer_crashed")
    wait_until(lambda: served.stored(job_id) == [job.inputs["model"].key])
    assert "the last line" in job.error.detail


def test_a_second_dispatcher_in_the_same_home_refuses_to_start(served: Workplace) -> None:
    served.wait_until_finished(served.submit())
    command = [sys.executable, "-m", "tests.service.worker.run_dispatcher"]
    second = subprocess.run(command, env=served.environment, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "HomeInUse" in second.stderr


@pytest.mark.parametrize("victims", [("runner", "trainer"), ("dispatcher", "everything")], ids="-".join)
def test_kill_9_and_the_job_goes_on_from_its_checkpoint(workplace: Workplace, victims: tuple[str, str]) -> None:
    """Whoever is killed: the next attempt begins before the lease would have ended, and nothing of the last one is left."""
    job_id = workplace.submit(steps=25, step_s=0.2, at={"0": "grandchildren"})
    dispatcher = workplace.start()
    for fence, victim in enumerate(victims, start=1):
        workplace.wait_for_checkpoint(job_id, fence)
        runners, trainers = workplace.runners(), workplace.trainers()
        assert (len(runners), len(trainers)) == (1, 3 if fence == 1 else 1)
        killed = time.monotonic()
        if victim in {"dispatcher", "everything"}:
            dispatcher.kill()
        for process in {"runner": runners, "trainer": trainers[:1], "everything": [*runners, *trainers[:1]]}.get(victim, []):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if victim in {"dispatcher", "everything"}:
            dispatcher.wait(5)
            dispatcher = workplace.start()
        workplace.wait_for(job_id, lambda job, fence=fence: job.fence == fence + 1)  # type: ignore[misc]
        assert time.monotonic() - killed < LEASE_S
        assert not {process.pid for process in trainers} & {process.pid for process in workplace.trainers()}
    done = workplace.wait_until_finished(job_id)
    assert (done.status, done.fence) == (Status.SUCCEEDED, 3)
    assert int(workplace.artifact(done, "model.onnx").split()[-1]) >= 2
    assert [key for key in workplace.stored(job_id) if "artifacts" in key] == [item.key for item in done.artifacts]
    workplace.end(dispatcher)


LEASE_S = 10.0


def test_sigterm_gives_the_job_back_and_it_resumes(workplace: Workplace) -> None:
    with workplace.dispatcher() as dispatcher:
        job_id = workplace.submit(max_attempts=1, steps=8, step_s=0.2)
        workplace.wait_for_checkpoint(job_id)
        dispatcher.terminate()
        asked = time.monotonic()
        assert dispatcher.wait(10) == 0
        assert time.monotonic() - asked < 5
    job = workplace.get(job_id)
    assert (job.status, job.attempts) == (Status.QUEUED, 0)
    workplace.wait_until_empty(timeout_s=0.1)
    with workplace.dispatcher():
        done = workplace.wait_until_finished(job_id)
    assert (done.status, done.fence, done.attempts) == (Status.SUCCEEDED, 2, 1)
    assert workplace.artifact(done, "model.onnx") != b"began at step 0"
    messages = [event.message for event in EventRepository(workplace.engine).page(job_id, 0, 100) if event.type == "message"]
    assert messages == ["Goes on from the checkpoint of attempt 1."]


def test_a_paused_job_leaves_its_place_and_goes_on_from_its_checkpoint(workplace: Workplace) -> None:
    with workplace.dispatcher():
        job_id = workplace.submit(max_attempts=1, steps=25, step_s=0.2, at={"0": "grandchildren"})
        other = workplace.submit()
        workplace.wait_for(job_id, lambda job: job.status is Status.RUNNING)
        workplace.wait_for_checkpoint(job_id)
        asked = time.monotonic()
        pausing = workplace.repository.request_pause(job_id)
        assert pausing is not None
        assert pausing.status is Status.PAUSING
        paused = workplace.wait_for(job_id, lambda job: job.status is Status.PAUSED)
        assert time.monotonic() - asked < 5
        assert (paused.attempts, paused.lease_until, paused.eta_s, paused.estimated_finish, paused.finished_at) == (
            0,
            None,
            None,
            None,
            None,
        )
        # The only worker is free for the next.
        assert workplace.wait_until_finished(other).status is Status.SUCCEEDED
        wait_until(lambda: not workplace.trainers() and not workplace.workdirs())
        assert workplace.get(job_id) == paused
        resumed = workplace.repository.resume(job_id)
        assert resumed is not None
        assert resumed.status is Status.QUEUED
        done = workplace.wait_until_finished(job_id)
    assert (done.status, done.fence, done.attempts) == (Status.SUCCEEDED, 2, 1)
    assert int(workplace.artifact(done, "model.onnx").split()[-1]) >= 1
    events = EventRepository(workplace.engine).page(job_id, 0, 99)
    # What came between the last write and the pause too, but for a line that the trainer may have died over.
    steps = {event.data["metrics"]["step"] for event in events if event.type == "metrics"}
    assert len(set(range(1, 26)) - steps) <= 1
    statuses = [event.data["status"] for event in events if event.type == "status"]
    run = ["queued", "validating", "running"]
    assert statuses == [*run, "pausing", "paused", *run, "succeeded"]


@pytest.mark.parametrize("victim", ["runner", "trainer", "service"])
def test_a_job_is_paused_whatever_dies_on_the_way(workplace: Workplace, victim: str) -> None:
    dispatcher = workplace.start()
    job_id = workplace.submit(steps=30, step_s=0.2)
    workplace.wait_for_checkpoint(job_id)
    (runner,) = workplace.runners()
    if victim == "trainer":
        (trainer,) = workplace.trainers()
        workplace.repository.request_pause(job_id)
        with suppress(psutil.NoSuchProcess):
            trainer.kill()
    else:
        runner.suspend()
        workplace.repository.request_pause(job_id)
        if victim == "service":
            dispatcher.kill()
            dispatcher.wait(5)
        with suppress(psutil.NoSuchProcess):
            runner.kill()
        if victim == "service":
            dispatcher = workplace.start()
    paused = workplace.wait_for(job_id, lambda job: job.status is Status.PAUSED)
    assert paused.lease_until is None
    assert any("checkpoint" in key for key in workplace.stored(job_id))
    workplace.repository.resume(job_id)
    workplace.wait_for(job_id, lambda job: job.fence == 2 and job.phase == "fit" and job.status is Status.RUNNING)
    assert [event.message for event in EventRepository(workplace.engine).page(job_id, 0, 999) if event.type == "message"]
    workplace.repository.request_cancel(job_id)
    assert workplace.wait_until_finished(job_id).status is Status.CANCELLED
    workplace.end(dispatcher)


def test_a_service_that_stops_while_a_job_is_being_paused_leaves_it_paused(workplace: Workplace) -> None:
    with workplace.dispatcher() as dispatcher:
        job_id = workplace.submit(steps=30, step_s=0.2)
        workplace.wait_for_checkpoint(job_id)
        workplace.repository.request_pause(job_id)
        dispatcher.terminate()
        assert dispatcher.wait(10) == 0
    assert workplace.get(job_id).status is Status.PAUSED
    workplace.repository.request_cancel(job_id)


def start_runner(workplace: Workplace, job_id: str, fence: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service.worker.runner", job_id, str(fence), "--trainer", *FAKE_TRAINER]
    return subprocess.Popen(command, env=workplace.environment)


def test_a_frozen_runner_is_taken_over_and_its_late_result_dropped(tmp_path: Path) -> None:
    with new_workplace(tmp_path / "home", lease_s=1.5) as workplace:
        job_id = workplace.submit(steps=4, step_s=0.25)
        first = workplace.repository.claim_next(1.5, home="elsewhere", process="frozen")
        assert first is not None
        frozen = start_runner(workplace, job_id, first.fence)
        workplace.wait_for_checkpoint(job_id)
        frozen.send_signal(signal.SIGSTOP)
        with workplace.dispatcher():
            done = workplace.wait_until_finished(job_id)
            assert (done.status, done.fence) == (Status.SUCCEEDED, 2)
            frozen.send_signal(signal.SIGCONT)
            assert frozen.wait(10) == 0
        assert workplace.get(job_id) == done
        assert all("/2/" in artifact.key for artifact in done.artifacts)


def test_the_dispatcher_kills_its_own_frozen_runner(tmp_path: Path) -> None:
    with new_workplace(tmp_path / "home", lease_s=1.5) as workplace, workplace.dispatcher():
        job_id = workplace.submit(steps=4, step_s=0.25)
        workplace.wait_for_checkpoint(job_id)
        (runner,) = workplace.runners()
        runner.suspend()
        done = workplace.wait_until_finished(job_id)
        assert (done.status, done.fence) == (Status.SUCCEEDED, 2)
        assert not runner.is_running()


def test_a_runner_that_cannot_renew_stops_at_the_end_of_its_lease(tmp_path: Path) -> None:
    with new_workplace(tmp_path / "home", lease_s=3.0) as workplace:
        job_id = workplace.submit(steps=2, step_s=60)
        job = workplace.repository.claim_next(3, home="elsewhere", process="p")
        assert job is not None
        runner = start_runner(workplace, job_id, job.fence)
        wait_until(workplace.trainers)
        with workplace.engine.connect() as connection:
            # Nobody else can write now.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            locked = time.monotonic()
            wait_until(lambda: not workplace.trainers())
            assert time.monotonic() - locked < 5
            connection.rollback()
        assert runner.wait(40) == 0
        assert not workplace.get(job_id).finished


def test_rows_that_cannot_be_read_keep_no_other_job_waiting(workplace: Workplace) -> None:
    with lock_home(workplace.settings.home) as home_id:
        exhausted, unnamed = (workplace.submit(max_attempts=1) for _ in range(2))
        for process in ("p", "not a process"):
            assert workplace.repository.claim_next(-1.0 if process == "p" else 600.0, home=home_id, process=process)
    with workplace.engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == exhausted).values(config=["not", "a", "config"]))
    with workplace.dispatcher():
        assert workplace.wait_until_finished(workplace.submit()).status is Status.SUCCEEDED
    with workplace.engine.connect() as connection:
        statuses = {row.id: row.status for row in connection.execute(select(jobs)) if row.id in {exhausted, unnamed}}
    assert statuses == {exhausted: Status.FAILED, unnamed: Status.VALIDATING}
