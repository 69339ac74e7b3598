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
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Layout:
    """The units of a value of `rank` dimensions: units[i] is the number of the one at position i of `axis`.

    `repeats`: they come over and over again, nobody knows how often: position i has units[i % len(units)].
    """

    rank: int
    axis: int
    units: Units
    repeats: bool = False

    def has(self, rank: int, axis: int, count: int) -> bool:
        """Whether just so many units lie on this axis of so many."""
        return (self.rank, self.axis, len(self.units), self.repeats) == (rank, axis, count, False)


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
class Grouped:
    """A convolution in groups of channels that reads units and makes others.

    Attributes:
        by_first: those along the first axis of the weight; None where they are not known.
        by_place: those along the second axis, of all groups; None where they are not known.
        shared: new units, for the places along the second axis.
    """

    node: Node
    weight: Stored
    groups: int
    transposed: bool
    by_first: Units | None
    by_place: Units | None
    shared: Units
    bias: Stored | None
    offset: Offset | None

    @property
    def read(self) -> Units | None:
        return self.by_first if self.transposed else self.by_place


@dataclass(frozen=True)
class Lookup:
    """Rows of a table, whose columns are units."""

    node: Node
    table: Stored


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
    """Position i of the output holds what position source[i] of the inputs, one after the other, holds; `sizes`: positions of each."""

    node: Node
    sizes: tuple[int, ...]
    source: Units
    keeps: Keeps = Keeps.ALL
    target: Target | None = None


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


@dataclass(frozen=True)
class Picked:
    """Elements of an axis, or nobody knows which, in place of which there are `num_dims` axes."""

    axis: int
    indices: Array | None
    num_dims: int


@dataclass(frozen=True)
class Pick:
    """Some elements of axes on which the units do not lie; `output` is one of the node's."""

    node: Node
    output: str
    picked: tuple[Picked, ...]


@dataclass(frozen=True)
class Sections:
    """Parts of the axis of the units, from one position to another one, by output."""

    node: Node
    bounds: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Join:
    """Values of the same units, one after the other along an axis on which they do not lie."""

    node: Node


@dataclass(frozen=True)
class Product:
    """A product of two values, of each unit by itself; `takes_means`: each row of the left factor sums up to 1."""

    node: Node
    takes_means: bool


@dataclass(frozen=True)
class Attend:
    """Attention, each head by itself: `sharing` heads of the query for each of keys and values; `takes_means`: of values, and of nothing
    where a mask leaves none."""

    node: Node
    sharing: int
    takes_means: bool


@dataclass(frozen=True)
class Recurrent:
    """A recurrent layer that reads units and makes others, which also read each other.

    Attributes:
        gates: how many rows of `w` and `r` a unit has.
        read: the units of its input; None where they are not known.
        begins: the first states: None for one that is 0, or the name of a value.
        has_lengths: whether rows may end before others, and then give 0.
    """

    node: Node
    gates: int
    w: Stored
    r: Stored
    bias: Stored | None
    peepholes: Stored | None
    read: Units | None
    units: Units
    begins: tuple[Stored | str | None, ...]
    has_lengths: bool


Step = Linear | Depthwise | Grouped | Pointwise | Move | Turn | View | Pick | Sections | Join | Product | Attend | Recurrent | Lookup


@dataclass(frozen=True)
class Trace:
    """All that is known of the units of a graph: `group` says which units stay or go together, `pinned` which groups stay."""

    layouts: Mapping[str, Layout]
    steps: Sequence[Step]
    cuts: Sequence[Cut]
    group: Units
    pinned: Mask
    features: Mapping[str, Units]  # input features that are gathered, by the output of the node that reads them
