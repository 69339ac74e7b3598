"""A home folder with real dispatcher processes, and eyes on everything that runs for it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from service.jobs.engine import create_engine
from service.jobs.job import Job, JobInput, new_job
from service.jobs.migrate import upgrade
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.storage import keys
from service.storage.store import ObjectStore
from tests.service.storage.objects import put_bytes

FAKE_TRAINER = (sys.executable, str(Path(__file__).with_name("fake_trainer.py")))


class Workplace:
    def __init__(self, settings: Settings, trainer_command: tuple[str, ...] = FAKE_TRAINER) -> None:
        self.settings = settings
        self._trainer_command = trainer_command
        settings.home.mkdir(parents=True, exist_ok=True)
        self.engine = create_engine(settings.database)
        upgrade(self.engine)
        self.repository = JobRepository(self.engine)
        self.store = ObjectStore(settings.store_root)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | self.settings.to_environment()

    def submit(self, max_attempts: int = 3, **script: Any) -> str:
        """Queues a job whose model is a script of the fake trainer."""
        return self.submit_files(json.dumps(script).encode(), max_attempts=max_attempts)

    def submit_files(self, model: bytes, *, dataset: str = "builtin:digits", max_attempts: int = 3, **config: Any) -> str:
        job = new_job(config=config, inputs={}, max_attempts=max_attempts)
        key = keys.input_key(job.id, "model", ".onnx")
        put_bytes(self.store, key, model)
        inputs = {"model": JobInput(key=key), "dataset": JobInput(ref=dataset)}
        self.repository.insert(job.model_copy(update={"inputs": inputs}))
        return job.id

    def get(self, job_id: str) -> Job:
        job = self.repository.get(job_id)
        assert job is not None
        return job

    def wait_for(self, job_id: str, condition: Callable[[Job], object], timeout_s: float = 30.0) -> Job:
        wait_until(lambda: condition(self.get(job_id)), timeout_s)
        return self.get(job_id)

    def wait_until_finished(self, job_id: str, timeout_s: float = 30.0) -> Job:
        return self.wait_for(job_id, lambda job: job.finished, timeout_s)

    def wait_for_checkpoint(self, job_id: str, fence: int = 1, timeout_s: float = 60.0) -> None:
        wait_until(lambda: self.store.exists(keys.checkpoint_key(job_id, fence)), timeout_s)

    def artifact(self, job: Job, name: str) -> bytes:
        (artifact,) = (artifact for artifact in job.artifacts if artifact.name == name)
        path = self.settings.home / "fetched"
        self.store.get_to_file(artifact.key, path)
        return path.read_bytes()

    def stored(self, job_id: str) -> list[str]:
        return self.store.list(keys.job_prefix(job_id))

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.service.worker.run_dispatcher", *self._trainer_command]
        return subprocess.Popen(command, env=self.environment, start_new_session=True)

    @contextmanager
    def dispatcher(self) -> Iterator[subprocess.Popen[bytes]]:
        process = self.start()
        try:
            yield process
        finally:
            self.end(process)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        assert process.wait(15) in {0, -signal.SIGKILL}

    def runners(self) -> list[psutil.Process]:
        return [process for process in processes_of(self.settings.home) if "service.worker.runner" in _command(process)]

    def trainers(self) -> list[psutil.Process]:
        """Trainers and what they have started."""
        work_root = str(self.settings.work_root.resolve())
        return [process for process in processes_of(self.settings.home) if work_root in _environment(process).get("HOME", "")]

    def wait_until_empty(self, timeout_s: float = 10.0) -> None:
        """Until no process of this home and no work directory is left."""
        wait_until(lambda: not processes_of(self.settings.home) and not self.workdirs(), timeout_s)

    def workdirs(self) -> list[Path]:
        return list(self.settings.work_root.iterdir()) if self.settings.work_root.exists() else []


def processes_of(folder: Path) -> list[psutil.Process]:
    """Runners, trainers and what these have started, of homes and work directories in `folder`; ourselves left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            values = _environment(process)
            if str(folder) in f"{values.get('BAYESPRESS_HOME')} {values.get('HOME')}" and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return [process for process in found if process.pid != os.getpid()]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def small_settings(home: Path, **values: Any) -> Settings:
    return Settings(home=home, **({"lease_s": 10.0, "renew_s": 0.5} | values))


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.03)
