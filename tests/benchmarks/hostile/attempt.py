"""Hostile files in the real child process, and everything that is found out about each."""

import asyncio
import json
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.worker.trainer_process import Limits, Outcome, TrainerProcess
from tests.benchmarks.hostile.case import EXECUTED, HARMLESS, LINK, PLANTED, Case
from tests.benchmarks.hostile.driver import CASES, CONTROL, ENTER, LEAVE, MEASURED, MODEL
from tests.service.worker.workplace import processes_of

MAX_SECONDS, MAX_BYTES = 5.0, 2**30

_DRIVER = (sys.executable, "-m", "tests.benchmarks.hostile.driver")
_WALL_S = 300.0
_STRACE = ("-f", "--seccomp-bpf", "-s", "400", "-e", "trace=%file,%network,%process")

# The interpreter's own modules, which Python may still import; what the kernel says about processor and memory; the C library's zones.
_ITS_OWN = tuple(
    {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[3] / "compressor"),
        *("/proc/self/", "/proc/cpuinfo", "/proc/meminfo", "/sys/", "/dev/urandom", "/usr/share/zoneinfo", "/etc/localtime"),
    }
)
_STARTS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.", "socket.", "urllib.", "pty.")


@dataclass(frozen=True)
class Attempt:
    """What became of a case. `faults` is empty where it is as it must be."""

    case: Case
    code: str
    detail: str
    file_bytes: int
    seconds: float
    peak_bytes: int
    faults: list[str]

    def row(self) -> dict[str, Any]:
        """For the JSON file."""
        named = {"name": self.case.name, "row": self.case.row, "expected": self.case.code, "code": self.code, "detail": self.detail}
        return {**named, "file_bytes": self.file_bytes, "seconds": self.seconds, "peak_bytes": self.peak_bytes, "faults": self.faults}


def attempt(cases: Sequence[Case]) -> list[Attempt]:
    """Runs the files of `cases` one after the other in one trainer's child, under strace where there is one."""
    with _planted() as (workdir, planted):
        sizes = [_write(case, workdir / CASES / f"{index:03}", planted) for index, case in enumerate(cases)]
        (workdir / CASES / CONTROL).mkdir()
        trace = workdir / "trace.txt"
        strace = shutil.which("strace")
        traced = () if strace is None else (strace, *_STRACE, "-o", str(trace))
        outcome = asyncio.run(_run(workdir, (*traced, *_DRIVER)))
        left = len(processes_of(workdir))
        calls = _calls_by_case(trace) if trace.exists() else {}
        blind = list(_unseen(workdir / CASES / CONTROL, calls.get(CONTROL)))
        found = []
        for index, (case, size) in enumerate(zip(cases, sizes, strict=True)):
            folder = workdir / CASES / f"{index:03}"
            made = _judge(case, size, folder, calls.get(folder.name, []))
            if outcome.result is None:
                made.faults.append(f"the child ended with {outcome.problem}")
            made.faults.extend(blind)
            if left:
                made.faults.append(f"{left} processes are left")
            found.append(made)
        return found


def _write(case: Case, folder: Path, planted: Path) -> int:
    folder.mkdir(parents=True)
    made = case.make(str(planted))
    with (folder / MODEL).open("wb") as file:
        if isinstance(made, int):
            file.truncate(made)
            return made
        file.write(made)
        return len(made)


async def _run(workdir: Path, command: tuple[str, ...]) -> Outcome:
    async with TrainerProcess(workdir, Limits(wall_s=_WALL_S, threads=1), command=command) as trainer:
        async for _ in trainer.lines():
            pass
        return await trainer.outcome()


@contextmanager
def _planted() -> Iterator[tuple[Path, Path]]:
    """A work directory, with a file to be stolen in the working directory of the child, beside it, and far away."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name, tempfile.TemporaryDirectory(prefix="elsewhere-") as other:
        workdir, planted = Path(name).resolve() / "run", Path(other).resolve() / PLANTED
        (workdir / "cwd").mkdir(parents=True)
        for place in (planted, workdir / PLANTED, workdir / "cwd" / PLANTED):
            place.write_bytes(b"taken" * 100)
        (workdir / "cwd" / LINK).symlink_to(planted)
        yield workdir, planted


def _judge(case: Case, file_bytes: int, folder: Path, calls: Sequence[str]) -> Attempt:
    measured = json.loads((folder / MEASURED).read_text()) if (folder / MEASURED).exists() else {"ended": "nothing measured"}
    problem = measured.get("problem") or {}
    code = measured["ended"] if "ended" in measured else problem.get("code", HARMLESS)
    seconds, peak_bytes = measured.get("seconds", 0.0), measured.get("peak_bytes", 0)
    faults = []
    if code != case.code:
        faults.append(f"{code} instead of {case.code}")
    if problem and not (problem["param"] and problem["suggestion"]):
        faults.append("no place, or no remedy")
    if seconds > MAX_SECONDS:
        faults.append(f"{seconds:.1f} s")
    if peak_bytes > MAX_BYTES:
        faults.append(f"{peak_bytes / 2**20:.0f} MiB")
    if measured.get("cwd", []) != sorted((LINK, PLANTED)):
        faults.append(f"{EXECUTED} or another file was written")
    faults += _done_in_python(measured, folder / MODEL)
    faults += [fault for call in calls for fault in _done_by_a_library(call, folder / MODEL)]
    return Attempt(case, code, problem.get("detail", ""), file_bytes, seconds, peak_bytes, faults)


def _unseen(control: Path, calls: Sequence[str] | None) -> Iterator[str]:
    """What the driver stole and nobody saw."""
    measured = json.loads((control / MEASURED).read_text()) if (control / MEASURED).exists() else {}
    if f"Python opened {PLANTED}" not in _done_in_python(measured, control / MODEL):
        yield "a file opened by Python is not seen"
    if calls is not None and f"a library opened {PLANTED}" not in [fault for call in calls for fault in _done_by_a_library(call, control)]:
        yield "a file opened by a library is not seen"


def _done_in_python(measured: Mapping[str, Any], model: Path) -> Iterator[str]:
    for event in measured.get("events", []):
        kind, _, what = event.partition(" ")
        if kind == "open" and not _may_be_opened(what, model):
            yield f"Python opened {what}"
        elif kind.startswith(_STARTS):
            yield f"Python did {event}"


def _calls_by_case(trace: Path) -> dict[str, list[str]]:
    """System calls between ENTER and LEAVE, by the name of the case's folder; each case is a process, its threads beside it."""
    found: dict[str, list[str]] = {}
    current: str | None = None
    for line in trace.read_text(errors="replace").splitlines():
        if ENTER in line:
            current = line.partition(ENTER)[2].partition('"')[0]
            found[current] = []
        elif LEAVE in line:
            current = None
        elif current is not None:
            found[current].append(line)
    return found


def _done_by_a_library(call: str, model: Path) -> Iterator[str]:
    found = re.match(r"\d+\s+(\w+)\((.*)", call)
    if not found:
        return
    name, rest = found.groups()
    if name in ("open", "openat", "openat2"):
        path = re.search(r'"((?:[^"\\]|\\.)*)"', rest)
        if path and not _may_be_opened(path.group(1), model):
            yield f"a library opened {path.group(1)}"
    elif name in ("execve", "execveat", "fork", "vfork", "socket", "connect", "bind") or (
        name in ("clone", "clone3") and "THREAD" not in rest
    ):
        yield f"a library did {call[:200]}"


def _may_be_opened(path: str, model: Path) -> bool:
    """The model, and what is the interpreter's own; a number is a file that is open already."""
    return path == str(model) or path.isdigit() or path.startswith(_ITS_OWN)
