"""Units (neurons, filters, features, heads), by number: where they lie in values and tensors, and what each node does with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.graph.node import Node
from compressor.structure.sizes import Atom

Array = npt.NDArray[Any]
Units = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Layout:
    """The units of a value of `rank` dimensions: units[i] is the number of the one at position i of `axis`.

    `repeats`: they come over and over again, nobody knows how often: position i has units[i % len(units)].
    """

    rank: int
    axis: int
    units: Units
    repeats: bool = False


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
class Target:
    """The sizes that a node is given in `slot`. They change with the units on `axis`, and those of `counted`, of which they count some.

    `repeats`: the size of `axis` follows from the others.
    """

    slot: int
    sizes: tuple[int, ...]
    axis: int
    repeats: bool = False
    counted: tuple[Units, ...] = ()


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


class Keeps(Enum):
    """Which constants a node hands on."""

    ALL = "every number"
    ZERO = "0, since other numbers may be mixed in"
    NOTHING = "none that are known"


@dataclass(frozen=True)
class Move:
    """Position i of the output holds what position source[i] of the inputs, one after the other, holds.

    Attributes:
        output: the one of the node's that this is about.
        sizes: positions of each input.
    """

    node: Node
    output: str
    sizes: tuple[int, ...]
    source: Units
    keeps: Keeps = Keeps.ALL


@dataclass(frozen=True)
class Turn:
    """The same numbers, with the axes in another order."""

    node: Node
    perm: tuple[int, ...]


@dataclass(frozen=True)
class View:
    """The same numbers in the same order under another shape, of `rank` dimensions."""

    node: Node
    atoms: tuple[Atom, ...]
    rank: int
    target: Target | None


Step = Linear | Depthwise | Pointwise | Move | Turn | View


@dataclass(frozen=True)
class Trace:
    """All that is known of the units of a graph: `group` says which units stay or go together, `pinned` which groups stay."""

    layouts: Mapping[str, Layout]
    steps: Sequence[Step]
    cuts: Sequence[Cut]
    group: Units
    pinned: npt.NDArray[np.bool_]
    features: Mapping[str, Units]  # input features that are gathered, by the output of the node that reads them
