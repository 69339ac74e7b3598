"""The one place that starts the trainer, for the runner and for `bayespress compress`: its environment, its limits, its end."""

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

import compressor
from compressor.errors import CompressionError, GraphTooLarge, OutOfMemory, Problem, TrainerCrashed, TrainingError, UnsupportedModel
from compressor.protocol import TRAINER_LINE, ExitCode, Failure, Progress, Result, TrainerLine
from service.devices import CUDA_DEVICE
from service.worker import launcher
from service.worker.processes import kill_group, kill_strays, resident_bytes

TRAINER_COMMAND = (sys.executable, "-m", "compressor.trainer")

LOG_LINES = 50
LOG_LINE_CHARACTERS = 500
MAX_LINE_BYTES = 1024 * 1024
TERM_GRACE_S = 0.5
POLL_S = 0.05

# What the dynamic loader and CUDA need, and the number of threads where whoever started us has set one.
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
MAX_FILE_BYTES = 64 * 1024**3
MAX_OPEN_FILES = 4096
# The wall clock stops a trainer first. This is for one whose watcher does not get to look at it.
CPU_MARGIN_S = 60

# Signals by which a fault in a library ends a process.
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)

# How an allocation that fails reads in Python, C++, Rust, torch, the loader and the thread library.
MEMORY_SIGNS = (
    "MemoryError",
    "bad_alloc",
    "Cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "failed to map segment",
    "can't start new thread",
    "memory allocation of",
)


@dataclass(frozen=True)
class Limits:
    """What a trainer may use. None: no limit, or for `threads` the library's own choice.

    wall_s        of the whole run; with it comes a limit of as much processor time on every core
    validate_s    until the trainer has left the phase "validate", its imports included: what is not admitted by then never will be
    """

    memory_bytes: int | None = None
    wall_s: float | None = None
    threads: int | None = None
    validate_s: float | None = 300.0


@dataclass(frozen=True)
class Outcome:
    """How a trainer ended: a result, or a problem; `transient` where another attempt may end otherwise."""

    result: Result | None = None
    problem: Problem | None = None
    transient: bool = False


class TrainerProcess:
    """A trainer at work in `workdir`, which holds trainer.json. Leaving the `async with` block kills it with all its descendants."""

    def __init__(self, workdir: Path, limits: Limits, *, cuda: bool = False, command: Sequence[str] = TRAINER_COMMAND) -> None:
        self._workdir = workdir.resolve()
        self._home = self._workdir / "home"
        self._limits = limits
        # CUDA reserves address space without end, so there RLIMIT_AS cannot bound memory and we look at it ourselves.
        self._cuda = cuda and CUDA_DEVICE.exists()
        self._command = command
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._last: Result | Failure | None = None
        self._has_spoken = False
        self._is_validating = True
        self._stopped_by: CompressionError | None = None
        self._ended = asyncio.Event()

    @property
    def log_tail(self) -> str:
        return "\n".join(self._log)

    async def __aenter__(self) -> Self:
        for folder in (self._home, self._workdir / "tmp", self._workdir / "cwd"):
            folder.mkdir(exist_ok=True)
        options = json.dumps({"parent": os.getpid(), "limits": self._resource_limits()})
        # From the thread of the event loop: the kernel's "parent died" means the thread.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launcher.__file__, options, *self._command, str(self._workdir)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self._workdir / "cwd",
            env=trainer_environment(self._workdir, self._limits.threads),
            start_new_session=True,
        )
        self._watch = asyncio.create_task(self._watch_process())
        self._reader = asyncio.create_task(self._read_log())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._kill()
        await asyncio.gather(self._watch, self._reader)

    async def lines(self) -> AsyncIterator[TrainerLine]:
        """What the trainer says, until it has ended; anything else on its stdout goes to the log."""
        assert self._process.stdout is not None  # noqa: S101  a pipe, as started above
        async for raw in _split_lines(self._process.stdout):
            try:
                line = TRAINER_LINE.validate_json(raw)
            except ValidationError:
                line = None
            # No database takes a NUL in a text.
            if line is None or b"\\u0000" in raw:
                self._add_to_log(raw)
                continue
            self._has_spoken = True
            self._is_validating = self._is_validating and isinstance(line, Progress) and line.phase == "validate"
            if isinstance(line, Result | Failure):
                self._last = line
            yield line

    async def outcome(self) -> Outcome:
        """To be called after the last line."""
        await self._watch
        await self._reader
        code = self._process.returncode
        if self._stopped_by:
            return Outcome(problem=self._stopped_by.to_problem())
        if isinstance(self._last, Failure):
            return Outcome(problem=self._last.problem)
        if self._last and code == (ExitCode.GATE_NOT_MET if self._last.problem else ExitCode.DONE):
            return Outcome(result=self._last)
        return self._crash(code or 0)

    def _crash(self, code: int) -> Outcome:
        if any(sign in line for sign in MEMORY_SIGNS for line in self._log):
            return Outcome(problem=_out_of_memory("An allocation failed", self.log_tail).to_problem())
        if self._limits.memory_bytes is not None and not self._has_spoken:
            # Without memory even an import fails in ways that name no cause: a SystemError, an abort, a segmentation fault.
            detail = f"It ended before its first word, with {self._limits.memory_bytes} bytes allowed to it"
            return Outcome(problem=_out_of_memory(detail, self.log_tail).to_problem())
        if code == -signal.SIGKILL:
            problem = _out_of_memory("It was killed (signal 9), as the system does where memory runs out", self.log_tail)
            return Outcome(problem=problem.to_problem(), transient=True)
        if self._has_spoken and self._is_validating and -code in CRASHES:
            # A graph that a library crashes over crashes it every time.
            return Outcome(problem=_crashed_in_validation(-code, self.log_tail).to_problem())
        if code == -signal.SIGXCPU:
            return Outcome(problem=TrainingError("The run used up its processor time.", suggestion="Lower epochs.").to_problem())
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code} and no result"
        crash = TrainerCrashed(
            f"The trainer {how}.{_quote(self.log_tail)}", suggestion="Report this with the log lines; another attempt may succeed."
        )
        return Outcome(problem=crash.to_problem(), transient=True)

    async def _watch_process(self) -> None:
        """Returns when the trainer has ended; what it has started must not keep its pipes open."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        # Process.wait() waits for the pipes too, in some versions of Python.
        while self._process.returncode is None:
            await asyncio.sleep(POLL_S)
            elapsed, limits = loop.time() - started, self._limits
            if limits.wall_s is not None and elapsed > limits.wall_s:
                self._stop(TrainingError(f"The run took longer than {limits.wall_s:g} s.", suggestion="Lower epochs."))
            if limits.validate_s is not None and self._is_validating and elapsed > limits.validate_s:
                self._stop(_too_long_to_validate(limits.validate_s))
            if limits.memory_bytes is not None and self._cuda and resident_bytes(self._process.pid) > limits.memory_bytes:
                self._stop(_out_of_memory(f"It used more than {limits.memory_bytes} bytes", self.log_tail))
        self._kill_descendants()
        self._ended.set()

    def _stop(self, reason: CompressionError) -> None:
        self._stopped_by = self._stopped_by or reason
        kill_group(self._process.pid)

    async def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), TERM_GRACE_S)
        self._kill_descendants()
        await self._ended.wait()

    def _kill_descendants(self) -> None:
        kill_group(self._process.pid)
        kill_strays(self._home)

    async def _read_log(self) -> None:
        assert self._process.stderr is not None  # noqa: S101  a pipe, as started above
        async for raw in _split_lines(self._process.stderr):
            self._add_to_log(raw)

    def _add_to_log(self, raw: bytes) -> None:
        # What a progress bar has overwritten is not worth keeping, and PostgreSQL takes no NUL in a text.
        text = raw.decode(errors="replace").rstrip().rpartition("\r")[2].replace("\0", "\ufffd")
        if text:
            self._log.append(text[:LOG_LINE_CHARACTERS])

    def _resource_limits(self) -> dict[str, int]:
        limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": MAX_FILE_BYTES, "RLIMIT_NOFILE": MAX_OPEN_FILES}
        if self._limits.memory_bytes is not None and not self._cuda:
            limits["RLIMIT_AS"] = self._limits.memory_bytes
        if self._limits.wall_s is not None:
            cores = self._limits.threads or os.cpu_count() or 1
            limits["RLIMIT_CPU"] = math.ceil(self._limits.wall_s * cores) + CPU_MARGIN_S
        return limits


def trainer_environment(workdir: Path, threads: int | None) -> dict[str, str]:
    """All that the trainer gets to see of the environment: nothing of ours, every cache inside its work directory."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return environment | {
        # `python -m compressor.trainer` must find the package from an empty folder, installed or not.
        "PYTHONPATH": str(Path(compressor.__file__).resolve().parent.parent),
        "PYTHONUNBUFFERED": "1",
        "HOME": str(workdir / "home"),
        "TMPDIR": str(workdir / "tmp"),
        "LANG": "C.UTF-8",
        # torch asks for a user name, and the user of a container may have none.
        "USER": "bayespress",
        "HF_HOME": str(workdir / "home" / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        # ONNX Runtime reports to its maker otherwise.
        "ORT_DISABLE_TELEMETRY": "1",
        # Temporaries of a megabyte, page-faulted anew in every operator, halve the speed of a small net.
        "MALLOC_MMAP_THRESHOLD_": "1000000000",
        "MALLOC_TRIM_THRESHOLD_": "4000000000",
        # Threads that wait for each other by spinning take a quarter more time where the cores have other work.
        "OMP_WAIT_POLICY": "passive",
    }


async def _split_lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Lines without their ends. Of a line that is too long only the beginning is given."""
    pending = b""
    while chunk := await stream.read(65536):
        *complete, rest = (pending + chunk).split(b"\n")
        for line in complete:
            yield line
        pending = rest[:MAX_LINE_BYTES]
    if pending:
        yield pending


def _out_of_memory(detail: str, log: str) -> OutOfMemory:
    return OutOfMemory(
        f"{detail}.{_quote(log)}",
        suggestion="Lower batch_size, use a smaller dataset, or give the worker more memory (trainer_memory_bytes).",
    )


def _too_long_to_validate(limit_s: float) -> GraphTooLarge:
    return GraphTooLarge(
        f"The validation of the model took longer than {limit_s:g} s.",
        param="model",
        suggestion="Export a smaller model, or one for smaller inputs.",
    )


def _crashed_in_validation(number: int, log: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"A library crashed over the model (signal {number}) as it was validated.{_quote(log)}",
        param="model",
        suggestion="Export the model again, with another exporter or opset; report it with the model where that does not help.",
    )


def _quote(log: str) -> str:
    return f" Its last log lines:\n{log}" if log else ""
