"""Process tokens, strays and the lock of a home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.worker.home import OWNER, HomeInUse, lock_home, sweep_workdirs, workdir
from service.worker.processes import is_alive, kill_strays, process_token


def test_token_of_a_process_that_lives_waits_to_be_reaped_and_is_gone() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        token = process_token(process.pid)
        assert is_alive(token)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(token)
    assert not is_alive(token)
    assert not is_alive(process_token(process.pid))


def test_token_of_another_process_with_the_same_pid_or_of_another_boot() -> None:
    namespace, pid, start_time = process_token(os.getpid()).rsplit("/", 2)
    assert is_alive(f"{namespace}/{pid}/{start_time}")
    assert not is_alive(f"{namespace}/{pid}/{int(start_time) + 1}")
    assert not is_alive(f"other/{namespace}/{pid}/{start_time}")


def test_kill_strays_kills_by_home_alone(tmp_path: Path) -> None:
    home, other = tmp_path / "a", tmp_path / "ab"
    inside = subprocess.Popen(["sleep", "1000"], env=os.environ | {"HOME": str(home)}, start_new_session=True)
    with subprocess.Popen(["sleep", "1000"], env=os.environ | {"HOME": str(other)}) as outside:
        kill_strays(home)
        assert inside.wait(5) == -9
        assert outside.poll() is None
        outside.kill()


def test_one_dispatcher_per_home_and_its_name_stays(tmp_path: Path) -> None:
    with lock_home(tmp_path / "home") as first, pytest.raises(HomeInUse, match="already runs"), lock_home(tmp_path / "home"):
        pass
    with lock_home(tmp_path / "home") as second:
        assert second == first
    with lock_home(tmp_path / "other") as other:
        assert other != first


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from service.worker.home import lock_home\n"
        "with lock_home(Path(sys.argv[1])): print('locked', flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(HomeInUse), lock_home(tmp_path):
            pass
        process.kill()
    with lock_home(tmp_path) as home_id:
        assert len(home_id) == 32


def test_sweep_removes_what_no_living_runner_owns(tmp_path: Path) -> None:
    mine, dead, nameless = (workdir(tmp_path, f"job_{name}", 1) for name in ("mine", "dead", "nameless"))
    for folder in (mine, dead, nameless):
        folder.mkdir()
    (mine / OWNER).write_text(process_token(os.getpid()))
    (dead / OWNER).write_text("boot/pid/1/1")
    with subprocess.Popen(["sleep", "1000"], env={"HOME": str(dead / "home"), "PATH": os.environ["PATH"]}) as stray:
        sweep_workdirs(tmp_path)
        assert stray.wait(5) == -9
    assert list(tmp_path.iterdir()) == [mine]
    sweep_workdirs(tmp_path / "absent")
