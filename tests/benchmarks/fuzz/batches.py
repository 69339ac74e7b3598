"""Mutants in forked batches: a crash, a hang or hunger for memory ends a batch, and is a finding; the rest goes on in another."""

import os
import resource
import select
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from tests.benchmarks.fuzz.judge import judge
from tests.benchmarks.fuzz.mutate import mutant

MAX_SECONDS = 5.0  # of processor time, for one mutant
MAX_BYTES = 2**30
_HANG_S = 60.0
_ADDRESS_SPACE = 16 * 2**30
_CPU_S = 600


@dataclass(frozen=True)
class Verdict:
    """Of one mutant: `code` of a refusal or of an admission; `fault` where it is neither."""

    number: int
    code: str
    seconds: float
    fault: str = ""


def made(seeds: Sequence[bytes], number: int) -> bytes:
    """The mutant called `number`; always the same one."""
    random = Random(number)
    return mutant(random.choice(seeds), random, random.choice(seeds))


def run_batch(seeds: Sequence[bytes], numbers: Sequence[int]) -> Iterator[Verdict]:
    """Verdicts on the mutants called `numbers`, each in a fork of this process that has its limits."""
    left = list(numbers)
    while left:
        for verdict in _run_fork(seeds, tuple(left)):
            left.remove(verdict.number)
            yield verdict


def _run_fork(seeds: Sequence[bytes], numbers: Sequence[int]) -> Iterator[Verdict]:
    """Until all are judged, or the fork has ended over one of them."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _judge_all(seeds, numbers, writing)
        finally:
            os._exit(0)
    os.close(writing)
    started = time.monotonic()
    with os.fdopen(reading, "rb") as pipe:
        for number in numbers:
            ready, _, _ = select.select([pipe], [], [], _HANG_S)
            line = pipe.readline() if ready else b""
            if not line:
                how = _end_of(child, killed=not ready)
                yield Verdict(number, "", time.monotonic() - started, how)
                return
            code, seconds, fault = line.decode().rstrip("\n").split("\t")
            yield Verdict(number, code, float(seconds), fault)
            started = time.monotonic()
    os.waitpid(child, 0)


def _end_of(child: int, *, killed: bool) -> str:
    if killed:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if killed:
        return f"hangs: no answer in {_HANG_S:g} s"
    return f"crashes with signal {status & 127}" if status & 127 else f"ends the process with exit code {status >> 8}"


def _judge_all(seeds: Sequence[bytes], numbers: Sequence[int], pipe: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.onnx"
        os.chdir(folder)
        for number in numbers:
            path.write_bytes(made(seeds, number))
            before, started = _peak_bytes(), time.process_time()
            code, fault = _judged(path)
            seconds, peak = time.process_time() - started, _peak_bytes()
            if not fault and seconds > MAX_SECONDS:
                fault = f"takes {seconds:.1f} s"
            if not fault and peak > MAX_BYTES and peak > before:
                fault = f"takes {peak / 2**20:.0f} MiB"
            os.write(pipe, f"{code}\t{seconds:.3f}\t{fault}\n".encode())


def _judged(path: Path) -> tuple[str, str]:
    try:
        return judge(path), ""
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in place if "/compressor/" in frame.filename] or place
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        return "", " ".join(f"{type(error).__name__} at {where}: {error!s}".split())[:400]


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
