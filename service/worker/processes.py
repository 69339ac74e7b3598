"""Which process is meant, whether it lives, and what it has left behind."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PROC = Path("/proc")
PR_SET_PDEATHSIG = 1
KILL_ROUNDS = 100


def process_token(pid: int) -> str:
    """A name for the process that no other one gets, after a reboot or in another container neither."""
    return f"{_namespace()}/{pid}/{_start_time(pid)}"


def is_alive(token: str) -> bool:
    """Whether the process of `token` runs. One of another boot or container does not, for a home has one dispatcher at a time."""
    namespace, pid, start_time = token.rsplit("/", 2)
    return namespace == _namespace() and start_time != "" and _start_time(int(pid)) == start_time


def die_with(parent: int) -> None:
    """Ends this process (SIGTERM) when its parent ends, however that happens. Linux only."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def kill_group(process_group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process_group, signal.SIGKILL)


def kill_strays(home: Path) -> None:
    """Kills every process that was started with HOME=`home`, its descendants included, whoever their parent is by now."""
    marker = f"HOME={home}".encode()
    # More than once, since a process may start another while we look; not for ever, since one may hang in the kernel.
    for _ in range(KILL_ROUNDS):
        strays = [pid for pid in _pids() if pid != os.getpid() and marker in _environment(pid)]
        if not strays:
            return
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def resident_bytes(pid: int) -> int:
    """Memory of the process in RAM; 0 where it is gone or the system does not say."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _namespace() -> str:
    try:
        return f"{(PROC / 'sys/kernel/random/boot_id').read_text().strip()}/{(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return "local"


def _start_time(pid: int) -> str:
    """Clock ticks from boot to the start of the process; empty where it is gone or only waits to be reaped."""
    if not PROC.is_dir():
        return _start_time_without_proc(pid)
    try:
        # The name, in parentheses, may itself contain parentheses and blanks.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _start_time_without_proc(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    return "unknown"


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()] if PROC.is_dir() else []


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
