"""`python -m tests.benchmarks.hostile.driver WORKDIR`: what the trainer does with a model file, with eyes on it. Started as the trainer is.

Imports first, and lets a harmless model in, since torch imports parts of itself only then. From there a process of its own is forked for
every file in WORKDIR/cases/, so that a crash ends only that one; in it, every file, process and connection that Python touches is noted.
Whatever libraries open themselves only strace sees: ENTER and LEAVE, two folders that do not exist, tell it where a file begins and ends.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compressor.pipeline  # noqa: F401  # all that the trainer imports
from compressor.admission import admit
from compressor.config import CompressionConfig
from compressor.errors import CompressionError, Problem
from compressor.protocol import ExitCode, Result
from tests.benchmarks.hostile.case import PLANTED
from tests.compressor.graph.models import linear_model

CASES, CONTROL, MODEL, MEASURED, WARM_UP = "cases", "control", "model.onnx", "measured.json", "warm-up.onnx"
ENTER, LEAVE = "/hostile-begins/", "/hostile-ends/"

_WATCHED = ("open", "os.", "socket.", "subprocess.", "shutil.", "exec", "compile", "import", "ctypes.", "urllib.", "tempfile.", "pty.")
_ALARM_S = 60


def main(workdir: Path) -> int:
    (workdir / WARM_UP).write_bytes(linear_model().SerializeToString())
    admit(workdir / WARM_UP, CompressionConfig())
    for folder in sorted((workdir / CASES).iterdir()):
        child = os.fork()
        if child == 0:
            signal.alarm(_ALARM_S)
            _measure(folder, _steal if folder.name == CONTROL else _admit)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            (folder / MEASURED).write_text(json.dumps({"ended": f"signal {status & 127}" if status & 127 else f"exit code {status >> 8}"}))
    sys.stdout.write(Result(verdict="tried").model_dump_json() + "\n")
    sys.stdout.flush()
    return ExitCode.DONE


def _admit(model: Path) -> None:
    admit(model, CompressionConfig())


def _steal(model: Path) -> None:
    """What no case may do, done by Python and past it: shows that the eyes are open."""
    (model.parent / "stolen.txt").write_bytes(Path(PLANTED).read_bytes())
    ctypes.CDLL(None).fopen(PLANTED.encode(), b"r")


def _measure(folder: Path, act: Callable[[Path], object]) -> None:
    events: set[str] = set()
    watching = False

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event.startswith(_WATCHED):
            events.add(f"{event} {arguments[0] if arguments else ''!s}"[:300])

    sys.addaudithook(note)
    before = _peak_bytes()
    started, started_cpu = time.monotonic(), time.process_time()
    os.access(ENTER + folder.name, os.F_OK)
    watching = True
    problem: Problem | None = None
    try:
        act(folder / MODEL)
    except CompressionError as error:
        problem = error.to_problem()
    finally:
        watching = False
        os.access(LEAVE + folder.name, os.F_OK)
    measured = {
        "problem": None if problem is None else problem.model_dump(),
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - started_cpu,
        "peak_bytes": _peak_bytes(),
        "peak_bytes_before": before,
        "events": sorted(events),
        "cwd": sorted(path.name for path in Path.cwd().iterdir()),
    }
    (folder / MEASURED).write_text(json.dumps(measured))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
