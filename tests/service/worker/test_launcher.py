"""The launcher as a real process that the kernel refuses things."""

import os
import subprocess
import sys
from pathlib import Path

from service.worker import launcher

NOBODY = 65534
# Imports while it may still read the library, becomes a plain process that may not write its own files in /proc
# (PR_SET_DUMPABLE 0), and goes on as the launcher.
WRAPPER = f"""
import collections.abc, ctypes, json, os, resource, signal, sys
from contextlib import contextmanager
from pathlib import Path
program = Path(sys.argv[1]).read_text()
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
del sys.argv[0]
exec(compile(program, "launcher.py", "exec"), {{"__name__": "__main__"}})
"""
SAY_NETWORK = ("/bin/readlink", "/proc/self/ns/net")


def launch(*program: str, limits: str = "{}", command: tuple[str, ...] = SAY_NETWORK) -> subprocess.CompletedProcess[str]:
    options = f'{{"parent": {os.getpid()}, "limits": {limits}}}'
    return subprocess.run([sys.executable, "-I", "-S", *program, options, *command], capture_output=True, text=True, check=False)


def test_it_goes_on_without_what_the_kernel_refuses_and_says_what_is_missing() -> None:
    done = launch("-c", WRAPPER, launcher.__file__)
    assert done.returncode == 0, done.stderr
    assert "the trainer is not the first to go where memory runs out: [Errno 13]" in done.stderr
    keeps_network = done.stdout.strip() == str(Path("/proc/self/ns/net").readlink())
    assert ("the trainer keeps its network" in done.stderr) == keeps_network
    # Only where the network could be cut there was a user to map.
    assert ("the trainer does not see its own user" in done.stderr) != keeps_network


def test_a_limit_that_is_refused_is_named_and_the_others_are_set() -> None:
    limits = '{"RLIMIT_NOFILE": -5, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": 4096}'
    done = launch(launcher.__file__, limits=limits, command=("/bin/sh", "-c", "ulimit -c; ulimit -f"))
    assert done.returncode == 0, done.stderr
    assert "launcher: the trainer runs without RLIMIT_NOFILE = -5" in done.stderr
    assert [int(line) for line in done.stdout.split()] == [0, 4096 // 512]
