"""Units (neurons, filters, features), by number: where they lie in values and tensors, and what each node does with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.graph.node import Node

Array = npt.NDArray[Any]
Units = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Layout:
    """The units of a value of `rank` dimensions: units[i] is the number of the one at position i of `axis`."""

    rank: int
    axis: int
    units: Units


@dataclass(frozen=True)
class Stored:
    """A constant as a node sees it: its axis i is axis axes[i] of the tensor."""

    tensor: str
    axes: tuple[int, ...]

    def of(self, arrays: Mapping[str, Array]) -> Array:
        """A view: what is written into it is written into the tensor."""
        return arrays[self.tensor].transpose(self.axes)


@dataclass(frozen=True)
class Cut:
    """`tensor` has the units of `units` along `axis`."""

    tensor: str
    axis: int
    units: Units


@dataclass(frozen=True)
class Offset:
    """What takes up a constant that is added to the output of a weight, times `factor`."""

    place: Stored
    factor: float


@dataclass(frozen=True)
class Linear:
    """A weight reads units and makes others: y = alpha * (x @ weight) + beta * bias, or a convolution."""

    node: Node
    weight: Stored
    inward: int
    outward: int
    units: Units | None  # those that it reads; None where they are not known
    bias: Stored | None
    bias_layout: Layout
    alpha: float
    beta: float
    padded: bool
    offset: Offset | None


@dataclass(frozen=True)
class Depthwise:
    """A convolution with a filter for each channel."""

    node: Node
    weight: Stored
    bias: Stored | None
    padded: bool


@dataclass(frozen=True)
class Pointwise:
    """What is computed for each position by itself, from values of one layout and constants."""

    node: Node
    layout: Layout
    operands: tuple[Stored | None, ...]  # by slot; None for a value, and for what is absent


@dataclass(frozen=True)
class Move:
    """Position i of the output holds what position source[i] of the inputs, one after the other, holds.

    Attributes:
        sizes: positions of each input.
        blurs: other numbers may be mixed in, so that only 0 stays what it is.
        target: of a Reshape: the shape that it gives, and the axis of it that the units lie on.
    """

    node: Node
    sizes: tuple[int, ...]
    source: Units
    blurs: bool = False
    target: tuple[tuple[int, ...], int] | None = None


Step = Linear | Depthwise | Pointwise | Move


@dataclass(frozen=True)
class Trace:
    """All that is known of the units of a graph: `group` says which units stay or go together, `pinned` which groups stay."""

    layouts: Mapping[str, Layout]
    steps: Sequence[Step]
    cuts: Sequence[Cut]
    group: Units
    pinned: npt.NDArray[np.bool_]
    features: Mapping[str, Units]  # input features that are gathered, by the output of the node that reads them
