"""The home folder as the worker sees it: its name, its one dispatcher, its work directories."""

import fcntl
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.worker.processes import is_alive, kill_strays

# Holds the process token of the runner that a work directory belongs to.
OWNER = "runner"


class HomeInUse(RuntimeError):
    """Another dispatcher works in this home."""


@contextmanager
def lock_home(home: Path) -> Iterator[str]:
    """The home's id, drawn once, for as long as no other dispatcher may have the home. The lock ends with the process."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "worker.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeInUse(f"another worker already runs in {home}") from None
        file.seek(0)
        home_id = file.read().strip()
        if not home_id:
            home_id = uuid.uuid4().hex
            file.write(home_id)
            file.flush()
        yield home_id


def workdir(work_root: Path, job_id: str, fence: int) -> Path:
    """The work directory of one attempt."""
    return work_root.resolve() / f"{job_id}-{fence}"


def remove_workdir(folder: Path) -> None:
    """Removes a work directory together with whatever still runs in it."""
    kill_strays(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


def sweep_workdirs(work_root: Path) -> None:
    """Removes the work directories whose runner is gone."""
    for folder in work_root.resolve().iterdir() if work_root.is_dir() else ():
        try:
            owner = (folder / OWNER).read_text()
        except OSError:
            owner = ""
        if not owner or not is_alive(owner):
            remove_workdir(folder)
