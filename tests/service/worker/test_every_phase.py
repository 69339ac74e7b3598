"""Pause and cancel at every phase of a real run: the trainer stands still as it enters the phase, so it cannot be missed, nor help."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from compressor.protocol import Phase
from service.jobs.job import Job
from service.jobs.states import Status
from tests.acceptance.digits_model import digits_model
from tests.service.worker.workplace import Workplace, small_settings, wait_until

TRAINER = (sys.executable, str(Path(__file__).with_name("halting_trainer.py")))
# Every part of a run, each as short as it goes. A phase that only inspections have is not among those of a run.
CONFIG = {"epochs": 2, "second_round_epochs": 1, "fine_tune_epochs": 1, "thresholds": [3.0], "max_branches": 1, "formats": ["packed"]}
MOMENTS = [*(phase for phase in get_args(Phase) if phase != "estimate"), "result"]
QUICK_MOMENT = "fit"
MARKS = [moment if moment == QUICK_MOMENT else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]
TIMEOUT_S = 90.0


@contextmanager
def halted_at(moment: str, folder: Path) -> Iterator[tuple[Workplace, str]]:
    """A workplace and the job in it whose trainer has come to this moment and stands still."""
    marker = folder / "halted"
    workplace = Workplace(small_settings(folder / "home"), (*TRAINER, moment, str(marker)))
    with workplace.dispatcher():
        job_id = workplace.submit_files(digits_model(), **CONFIG)
        wait_until(lambda: marker.exists() or workplace.get(job_id).finished, TIMEOUT_S)
        assert marker.exists(), workplace.get(job_id)
        yield workplace, job_id
    workplace.engine.dispose()


def digests(job: Job) -> dict[str, str]:
    """Of the artifacts that say nothing of when and how fast a run was."""
    return {artifact.name: artifact.sha256 for artifact in job.artifacts if artifact.name != "report.json"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "halted").touch()
    workplace = Workplace(small_settings(folder / "home"), (*TRAINER, "fit", str(folder / "halted")))
    with workplace.dispatcher():
        job = workplace.wait_until_finished(workplace.submit_files(digits_model(), **CONFIG), TIMEOUT_S)
    workplace.engine.dispose()
    assert job.status == Status.SUCCEEDED, job
    return digests(job)


@pytest.mark.parametrize("moment", MARKS)
def test_cancelled_at_this_moment_nothing_is_left(tmp_path: Path, moment: str) -> None:
    with halted_at(moment, tmp_path) as (workplace, job_id):
        workplace.repository.request_cancel(job_id)
        job = workplace.wait_until_finished(job_id)
        assert (job.status, job.artifacts, job.error) == (Status.CANCELLED, [], None)
        wait_until(lambda: not workplace.trainers() and not workplace.workdirs(), 10)
        wait_until(lambda: workplace.stored(job_id) == [job.inputs["model"].key], 10)


@pytest.mark.parametrize("moment", MARKS)
def test_paused_at_this_moment_it_goes_on_to_the_same_files(tmp_path: Path, moment: str, undisturbed: dict[str, str]) -> None:
    with halted_at(moment, tmp_path) as (workplace, job_id):
        workplace.repository.request_pause(job_id)
        paused = workplace.wait_for(job_id, lambda job: job.status != Status.PAUSING)
        assert (paused.status, paused.finished_at) == (Status.PAUSED, None)
        wait_until(lambda: not workplace.trainers() and not workplace.workdirs(), 10)
        workplace.repository.resume(job_id)
        job = workplace.wait_until_finished(job_id, TIMEOUT_S)
        assert (job.status, job.fence) == (Status.SUCCEEDED, 2), job
        assert digests(job) == undisturbed
