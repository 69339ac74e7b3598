"""What it takes to load a model file in stock ONNX Runtime, measured in a process of its own, which imports nothing else.

Run as a script it prints milliseconds and bytes. It inherits the environment that this package has set for ONNX Runtime.
"""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

_NUM_LOADS = 3
_TIMEOUT_S = 120.0


class LoadCost(NamedTuple):
    """`median_ms`: of three loadings. `peak_bytes`: resident memory at its highest during the first, beyond what the process had before."""

    median_ms: float
    peak_bytes: int


def measure_load(path: Path) -> LoadCost | None:
    """None where no process could be started or ONNX Runtime does not load the file within two minutes."""
    try:
        # -I: nothing of ours lies on the path of the process.
        command = [sys.executable, "-I", "-W", "ignore", __file__, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S)  # noqa: S603  our own file
    except (OSError, subprocess.SubprocessError):
        return None
    return LoadCost(*json.loads(done.stdout))


def _load(path: str) -> LoadCost:
    import onnxruntime  # in this process alone

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    with suppress(OSError):  # where that is not allowed, the peak may be that of the imports
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far begins anew
    before, peak, milliseconds = _resident("VmRSS"), 0, []
    for number in range(_NUM_LOADS):
        started = time.perf_counter()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        milliseconds.append(1000 * (time.perf_counter() - started))
        if number == 0:
            peak = max(0, _resident("VmHWM") - before)
        del session
    return LoadCost(median(milliseconds), peak)


def _resident(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    print(json.dumps(_load(sys.argv[1])))  # noqa: T201  to who has started it
