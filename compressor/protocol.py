"""What passes between the trainer and whoever started it: a work directory, lines on a pipe, an exit code. Imports no torch.

    WORKDIR/trainer.json             TrainerInput, written by the caller
    WORKDIR/checkpoint.safetensors   replaced atomically at ends of epochs; where it exists at the start, the run resumes from it
    WORKDIR/artifacts/               the finished artifacts, complete when the exit code is 0 or 3; of an inspection inspection.json,
                                     of a selection selection.json beside the model; of an unpacking model.onnx alone

Every line that the trainer prints on stdout is one TrainerLine as JSON; stderr is a free-form log.
"""

from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from typing_extensions import TypeAliasType

from compressor.config import CompressionConfig
from compressor.errors import Problem

Kind = TypeAliasType("Kind", Literal["compress", "inspect", "select"])  # of a job
TrainerKind = Literal["compress", "inspect", "select", "unpack"]
Phase = Literal[
    "validate", "load", "evaluate", "probe", "fit", "sweep", "fine_tune", "control", "quantise", "write", "verify", "test", "estimate"
]

CURVE = "curve.safetensors"
INSPECTION = "inspection.json"
SELECTION = "selection.json"
TRAINER_INPUT = "trainer.json"
CHECKPOINT = "checkpoint.safetensors"
UNPACKED = "model.onnx"
ARTIFACTS = "artifacts"


class ExitCode(IntEnum):
    """Exit codes of the trainer, and of `bayespress compress`, `inspect` and `select`."""

    DONE = 0
    FAILED = 1
    CLIENT_ERROR = 2
    GATE_NOT_MET = 3


class DataReference(BaseModel):
    """Where the rows are: paths of local files (.parquet, .npz), or `builtin:digits`. Absent parts are carved from `train`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str
    validation: str | None = None
    test: str | None = None


class TrainerInput(BaseModel):
    """Content of WORKDIR/trainer.json. Relative paths are relative to WORKDIR. Only a run takes data, only a selection a curve."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: TrainerKind = "compress"
    model: Path
    data: DataReference | None = None
    curve: Path | None = None
    config: CompressionConfig

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "TrainerInput":
        for part, value, kind in (("data", self.data, "compress"), ("a curve", self.curve, "select")):
            if (self.kind == kind) != (value is not None):
                raise ValueError(f"{kind} needs {part}, and no other kind takes any")
        return self


class Progress(BaseModel):
    """Where a run stands. `progress` is the part of the whole run that is done, in [0, 1]; it never falls."""

    model_config = ConfigDict(frozen=True)

    type: Literal["progress"] = "progress"
    phase: Phase
    progress: float = Field(ge=0.0, le=1.0)
    eta_s: float | None = Field(default=None, ge=0.0)
    metrics: dict[str, float] = {}


class CheckpointSaved(BaseModel):
    """WORKDIR/checkpoint.safetensors has just been replaced by a newer one."""

    model_config = ConfigDict(frozen=True)

    type: Literal["checkpoint"] = "checkpoint"


class Failure(BaseModel):
    """The run has failed; the last line."""

    model_config = ConfigDict(frozen=True)

    type: Literal["failure"] = "failure"
    problem: Problem


class Result(BaseModel):
    """The artifacts are complete; the last line. `problem` says which gate was not met (exit code 3)."""

    model_config = ConfigDict(frozen=True)

    type: Literal["result"] = "result"
    verdict: str
    problem: Problem | None = None


TrainerLine = Annotated[Progress | CheckpointSaved | Failure | Result, Field(discriminator="type")]
TRAINER_LINE: TypeAdapter[TrainerLine] = TypeAdapter(TrainerLine)

OnProgress = Callable[[Progress], None]
