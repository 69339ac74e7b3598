"""`Inspection`: what a run would make of a model, found out without training; its JSON form is `inspection.json`. Imports no torch.

`numel` counts elements. A tensor is a float initialiser, or what a Constant node holds, of one or more dimensions.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from compressor.config import Task

FORMAT_VERSION: Literal[1] = 1

Batch = TypeAliasType("Batch", Literal["dynamic", "declared", "built in"])
Head = TypeAliasType("Head", Literal["scores", "softmax", "sigmoid", "probabilities"])
Treatment = TypeAliasType(
    "Treatment",
    Literal[
        "local reparameterisation",
        "drawn for each half of the batch, or local reparameterisation where that is cheaper",
        "noise for each lookup",
        "sampled once",
    ],
)
Shape = tuple[int | None, ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFile(_Part):
    """The uploaded file."""

    bytes: int
    sha256: str
    opset: int
    producer: str
    operators: dict[str, int] = Field(description="nodes that the output needs, by operator; Constant is none")
    num_nodes_left_out: int = Field(description="nodes that the output does not need")


class InputTensor(_Part):
    """An input. null in `shape` is a dynamic size; the first axis is the batch."""

    name: str
    dtype: str
    shape: Shape


class OutputTensor(_Part):
    """An output. Of those that are `selectable`, the option `output` may name another one than is `taken`."""

    name: str
    dtype: str
    shape: Shape | None = Field(description="null where it is no tensor")
    taken: bool
    selectable: bool


class ParameterCounts(_Part):
    """Elements of all tensors: those that get a mean and a variance, those that train without noise, and those that stay as they are."""

    numel: int
    variational: int
    without_noise: int
    fixed: int


class VariationalWeight(_Part):
    """A tensor whose elements get a mean and a variance, and what happens to it where it is read."""

    name: str
    shape: tuple[int, ...]
    numel: int
    treatments: list[Treatment] = Field(description="several where it is read in several ways, as a tied embedding is")


class UncoveredTensor(_Part):
    """A tensor of two or more dimensions that is not variational. It may train without noise; it is not made sparse."""

    name: str
    shape: tuple[int, ...]
    numel: int
    trained: bool
    reason: str


class Estimate(_Part):
    """What a step of training would take on this machine. None of it is measured on the model: see compressor/estimate.py."""

    batch_size: int
    training_bytes: int = Field(description="tensors of one step, parameters, gradients and optimiser; more than is in use at one time")
    largest_batch_size: int = Field(description="that fits into the memory of this machine; 0 where none does")
    flops_per_row: int = Field(description="of one noisy forward pass")
    seconds_per_1000_rows: float | None = Field(description="of one epoch of fitting, on the CPU; null where the run would take CUDA")
    num_threads: int
    assumed_shapes: dict[str, tuple[int, ...]] = Field(description="of a row, by input, where the file leaves a size open")


class Inspection(_Part):
    """What one model file holds, and what a run would do with it."""

    format_version: Literal[1] = FORMAT_VERSION
    verdict: str = Field(description="one sentence")
    warnings: list[str]
    file: ModelFile
    inputs: list[InputTensor]
    outputs: list[OutputTensor]
    head: Head = Field(description="what the output is read as; training takes the input of a softmax or sigmoid")
    tasks: list[Task] = Field(description="that the output can be read for; the type of the labels says which one it is")
    num_classes: int | None = Field(description="null where the graph leaves it open, or the output is no classifier's")
    batch: Batch = Field(description="declared: a fixed size that does not count; built in: one that does, so many rows run at a time")
    parameters: ParameterCounts
    weights: list[VariationalWeight]
    treatments: dict[Treatment, int] = Field(description="elements by treatment; a weight that is read in two ways counts under both")
    coverage: float = Field(description="variational part of the elements of all tensors of two or more dimensions")
    not_covered: list[UncoveredTensor]
    estimate: Estimate | None = Field(
        description="null where no size tried for the dynamic dimensions makes the graph run, or too little memory is here"
    )
