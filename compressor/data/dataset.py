"""What the other rooms get: the rows of each part as arrays that fit the model's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

PartName = Literal["train", "validation", "test"]
Array: TypeAlias = npt.NDArray[Any]
Labels: TypeAlias = npt.NDArray[Any]  # classes [N] as int64, or numbers [N, K] as float32


class InputSpec(Protocol):
    """One input of the model, as `compressor.graph.module.ValueSpec` has it."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> object:
        """torch.dtype or numpy dtype."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """With the batch dimension first; None where a dimension is dynamic."""


@dataclass(frozen=True)
class Dataset:
    """Rows in the model's own layout: uint8 for images, float32 for other numbers, int64 for integer inputs. They may have no labels."""

    inputs: tuple[Array, ...]
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, rows: npt.NDArray[np.int64]) -> "Dataset":
        """The given rows, in the given order, copied."""
        return Dataset(tuple(array[rows] for array in self.inputs), None if self.labels is None else self.labels[rows])


@dataclass(frozen=True)
class Loaded:
    """One file, read whole. `images` where uint8 pixels wait for their scaling."""

    dataset: Dataset
    images: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """The three parts of a run. `indices` are rows of the train file, for every part that was taken out of it."""

    train: Dataset
    validation: Dataset
    test: Dataset
    images: bool
    carved: tuple[Literal["validation", "test"], ...] = ()
    indices: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def takes_integers(spec: InputSpec) -> bool:
    return "int" in str(spec.dtype)


def to_text(shape: Sequence[int | None]) -> str:
    """A shape as people write it, the first dimension as N: [N, 1, 28, 28]."""
    return "[" + ", ".join(["N", *("?" if size is None else str(size) for size in shape[1:])]) + "]"


def to_names(names: Sequence[str], limit: int = 20) -> str:
    """Names from an untrusted file for a message: a few of them, cut."""
    shown = ", ".join(repr(name if len(name) <= 60 else name[:57] + "...") for name in names[:limit])
    return (shown or "none") + (f" and {len(names) - limit} more" if len(names) > limit else "")
