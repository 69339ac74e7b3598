"""Run by path as the trainer's own process, before it becomes the trainer: limits, no network, death with its parent.

    python -I -S launcher.py '{"parent": 123, "limits": {"RLIMIT_AS": 1}}' COMMAND...

A program of its own rather than a preexec_fn, which may deadlock where the parent has threads. Standard library only: it runs
without site-packages. What the kernel refuses is said on stderr and done without.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# <linux/sched.h> and <linux/prctl.h>
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38

# From the signal that names the cause (SIGXCPU) to the one that cannot be caught.
CPU_GRACE_S = 5


@contextmanager
def doing_without(consequence: str) -> Iterator[None]:
    """Where the kernel refuses what is done in the block, says so and goes on."""
    try:
        yield
    except (OSError, ValueError) as error:
        sys.stderr.write(f"launcher: {consequence}: {error}\n")


def set_limits(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        most = limit + CPU_GRACE_S if name == "RLIMIT_CPU" else limit
        with doing_without(f"the trainer runs without {name} = {limit}"):
            resource.setrlimit(number, (limit, most if hard == resource.RLIM_INFINITY else min(most, hard)))


def cut_network(libc: ctypes.CDLL) -> None:
    """A network namespace without any interface; a plain user makes it inside a user namespace that maps only them."""
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNET if uid == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if flags & CLONE_NEWUSER:
        map_user(uid, gid)


def map_user(uid: int, gid: int) -> None:
    # Files are opened as before without it; only the numbers that the trainer sees of their owners differ.
    with doing_without("the trainer does not see its own user"):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def isolate(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with doing_without("the trainer keeps its network"):
        cut_network(libc)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Where memory runs out the kernel takes the trainer before the process that holds the lease, but not before a larger culprit.
    with doing_without("the trainer is not the first to go where memory runs out"):
        Path("/proc/self/oom_score_adj").write_text("300")
    # Last, since a change of credentials clears it.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    options = json.loads(sys.argv[1])
    if sys.platform == "linux":
        isolate(options["parent"])
    set_limits(options["limits"])
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  to start a process is what this file is for


if __name__ == "__main__":
    main()
