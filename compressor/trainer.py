"""`python -m compressor.trainer WORKDIR`: the child process that service and command line both start; see compressor.protocol.

stdout carries nothing but TrainerLine objects, one a line; whatever a library prints goes to stderr. The exit code is an ExitCode.
"""

import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError

from compressor.atomic import replacing
from compressor.config import to_invalid_config
from compressor.errors import ClientError, CompressionError, GateNotMet, OutOfMemory
from compressor.inspection import Inspection
from compressor.protocol import (
    ARTIFACTS,
    CHECKPOINT,
    INSPECTION,
    TRAINER_INPUT,
    UNPACKED,
    CheckpointSaved,
    DataReference,
    ExitCode,
    Failure,
    Result,
    TrainerInput,
    TrainerKind,
)
from compressor.report import Report, Selection

Emit = Callable[[BaseModel], None]
Run = Callable[[Path, TrainerInput, Emit], int]

_ALLOCATION_FAILURES = ("can't allocate memory", "not enough memory", "std::bad_alloc", "bad_alloc", "malloc")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m compressor.trainer WORKDIR", file=sys.stderr)  # noqa: T201  # this process's own log
        return ExitCode.CLIENT_ERROR
    emit = _claim_stdout()
    workdir = Path(arguments[0]).absolute()
    try:
        job = _read_input(workdir)
    except Exception as error:
        return _fail(error, emit)
    # An import that fails is not a failure of the run. It ends this process without a word, and whoever started it, and knows what memory
    # it was given, says what that means.
    run = _load(job.kind)
    try:
        return run(workdir, job, emit)
    except Exception as error:
        return _fail(error, emit)


def _read_input(workdir: Path) -> TrainerInput:
    try:
        return TrainerInput.model_validate_json((workdir / TRAINER_INPUT).read_bytes())
    except ValidationError as error:
        raise to_invalid_config(error) from None


def _load(kind: TrainerKind) -> Run:
    """Imported here, since each kind would wait half a second for the libraries of the others."""
    if kind == "inspect":
        from compressor.survey import inspect

        return partial(_inspect, inspect)
    if kind == "select":
        from compressor.export import select

        return partial(_select, select)
    if kind == "unpack":
        from compressor.artifacts.unpack import unpack

        return partial(_unpack, unpack)
    from compressor.pipeline import compress

    return partial(_compress, compress)


def _inspect(inspect: Callable[..., Inspection], workdir: Path, job: TrainerInput, emit: Emit) -> int:
    found = inspect(workdir / job.model, job.config, emit)
    (workdir / ARTIFACTS).mkdir(exist_ok=True)
    with replacing(workdir / ARTIFACTS / INSPECTION) as path:
        path.write_text(found.model_dump_json(indent=1) + "\n")
    emit(Result(verdict=found.verdict))
    return ExitCode.DONE


def _select(select: Callable[..., Selection], workdir: Path, job: TrainerInput, emit: Emit) -> int:
    assert job.curve is not None  # noqa: S101  TrainerInput has it for this kind
    selection = select(workdir / job.model, workdir / job.curve, job.config, workdir / ARTIFACTS, emit)
    emit(Result(verdict=selection.verdict))
    return ExitCode.DONE


def _unpack(unpack: Callable[[Path, Path], None], workdir: Path, job: TrainerInput, emit: Emit) -> int:
    (workdir / ARTIFACTS).mkdir(exist_ok=True)
    unpack(workdir / job.model, workdir / ARTIFACTS / UNPACKED)
    emit(Result(verdict=f"{job.model.name} is plain ONNX now."))
    return ExitCode.DONE


def _compress(compress: Callable[..., Report], workdir: Path, job: TrainerInput, emit: Emit) -> int:
    report = compress(
        workdir / job.model,
        _located(workdir, job.data),
        job.config,
        workdir / ARTIFACTS,
        emit,
        checkpoint=workdir / CHECKPOINT,
        on_checkpoint=lambda: emit(CheckpointSaved()),
    )
    if report.gate_met:
        emit(Result(verdict=report.verdict))
        return ExitCode.DONE
    gate = report.missed_gates[0]
    detail = report.verdict if gate.startswith("max_metric_drop") else f"{gate} was not met: {report.verdict}"
    emit(Result(verdict=report.verdict, problem=GateNotMet(detail, param=gate, suggestion=_GATE_ADVICE[gate]).to_problem()))
    return ExitCode.GATE_NOT_MET


def _fail(error: Exception, emit: Emit) -> int:
    traceback.print_exception(error)
    failure = _to_compression_error(error)
    emit(Failure(problem=failure.to_problem()))
    return ExitCode.CLIENT_ERROR if isinstance(failure, ClientError) else ExitCode.FAILED


_KEPT = "or take the delivered point: every artifact and the curve are there."
_GATE_ADVICE = {
    "max_metric_drop": f"Allow a larger drop, give more rows, {_KEPT}",
    "max_metric_drop_relative": f"Allow a larger rise, give more rows, {_KEPT}",
    "target_ratio": f"Too many weights are of kinds that are not pruned. Ask for a lower ratio, {_KEPT}",
    "min_ratio": f"Allow a larger drop of the metric or a lower ratio, {_KEPT}",
    "max_bytes": f"Allow a larger drop of the metric or more bytes, {_KEPT}",
    "max_latency_ms": f"Zeros alone do not make stock runtimes faster. Allow more time, {_KEPT}",
}


def _located(workdir: Path, data: DataReference | None) -> DataReference:
    assert data is not None  # noqa: S101  TrainerInput has it for this kind
    return data.model_copy(update={part: _absolute(workdir, source) for part, source in data.model_dump().items()})


def _absolute(workdir: Path, source: str | None) -> str | None:
    """A file's path below the work directory; a builtin's name as it is."""
    return source if source is None or source.startswith("builtin:") else str(workdir / source)


def _claim_stdout() -> Emit:
    """Keeps the pipe to the caller for TrainerLine objects; file descriptor 1 becomes the log for everybody else."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(line: BaseModel) -> None:
        pipe.write(line.model_dump_json() + "\n")
        pipe.flush()

    return emit


def _to_compression_error(error: Exception) -> CompressionError:
    """The error itself, or what it amounts to."""
    if isinstance(error, CompressionError):
        return error
    failed_allocation = isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATION_FAILURES)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or failed_allocation:
        return OutOfMemory(
            "The trainer could not allocate the memory that it needed.",
            param="batch_size",
            suggestion="Lower batch_size, give fewer rows, or raise the trainer's memory limit.",
        )
    return CompressionError(
        f"{type(error).__name__} in the trainer.", suggestion="Report it with the job's log; the request itself may be in order."
    )


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # Not sys.exit: to take torch apart takes Python a second, for which whoever started us would wait.
    os._exit(code)
