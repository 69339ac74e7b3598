"""What is known of a graph while its units are traced, and what the handlers of the operators ask of it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import numpy_helper

from compressor.graph.node import Node
from compressor.graph.reader import ONNX_DOMAINS, Graph
from compressor.structure.counts import COUNTING, Count, Counts, computed_counts, counts_of_array, counts_of_sizes, plain_numbers
from compressor.structure.sizes import Size, Sizes
from compressor.structure.units import Array, Cut, Layout, Step, Stored, Units

# What makes zeros of zeros.
_OF_ZEROS = frozenset({"Cast", "Expand", "Identity", "Slice", "Squeeze", "Transpose", "Unsqueeze"})

Shape = tuple[int | str | None, ...]


class Unproven(Exception):
    """A node that is not known to treat units one by one."""


@dataclass(frozen=True)
class Found:
    """What a node does.

    Attributes:
        steps: how its outputs come about.
        layouts: of its outputs.
        sizes: of its outputs, where inference knows less.
        counted: inputs of sizes, which are set anew where the units change that they count.
    """

    steps: tuple[Step, ...] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    cuts: tuple[Cut, ...] = ()
    ties: tuple[Units, ...] = ()
    sizes: Mapping[str, Sizes] = field(default_factory=dict)
    counted: tuple[str, ...] = ()


class Scope:
    """The part of a graph that its outputs need, and what has been found out about it so far.

    Args:
        graph: all of its outputs must stay as they are.
        arrays: all constants by name.
        floats: names of those that may be cut.
        shapes: of the values, as far as inference knows them.
        drop_dead_inputs: whether features of the graph's input are units, where one weight is all that reads them.
    """

    def __init__(
        self,
        graph: Graph,
        arrays: Mapping[str, Array],
        floats: Collection[str],
        shapes: Mapping[str, Shape],
        *,
        drop_dead_inputs: bool,
    ) -> None:
        self.inputs = {info.name for info in graph.inputs}
        self.outputs = {info.name for info in graph.outputs}
        self.nodes = graph.needed_nodes(self.outputs)
        self.arrays = arrays
        self.drop_dead_inputs = drop_dead_inputs
        self.made_by = {name: node for node in self.nodes for name in node.outputs}
        self.stored = {name: Stored(name, tuple(range(array.ndim))) for name, array in arrays.items()}
        self._readers: dict[str, list[Node]] = defaultdict(list)
        self.layouts: dict[str, Layout] = {}
        self.sizes: dict[str, Sizes] = {}
        self.counts: dict[str, Counts] = {}
        self.features: dict[str, Units] = {}
        self.pinned: list[Units] = []
        self.zeros: set[str] = set()  # values that are 0 all over
        self.distributions: set[str] = set()  # values that sum up to 1 along the last axis
        self.num_units = 0
        self._floats, self._shapes = floats, shapes
        self._reads: Counter[str] = Counter()
        self._count_reads()

    def _count_reads(self) -> None:
        """How often each constant is read, Transpose and Identity looked through, and who reads a value."""
        for node in self.nodes:
            for name in filter(None, node.inputs):
                self._readers[name].append(node)
            turns = node.op_type in ("Identity", "Transpose") and node.domain in ONNX_DOMAINS
            seen = self.stored.get(node.inputs[0]) if turns else None
            if seen is not None and seen.tensor in self._floats:
                perm = range(len(seen.axes)) if node.op_type == "Identity" else permutation(node, len(seen.axes))
                self.stored[node.outputs[0]] = Stored(seen.tensor, tuple(seen.axes[axis] for axis in perm))
                continue
            self._reads.update(self.stored[name].tensor for name in node.inputs if name in self.stored)
        for name in self.outputs:
            if name in self.stored:
                self._reads[self.stored[name].tensor] += 2  # it is not ours alone

    def readers(self, name: str) -> Sequence[Node]:
        return self._readers.get(name, ())

    def is_used(self, name: str) -> bool:
        return name in self._readers or name in self.outputs

    def new(self, count: int) -> Units:
        """As many new units."""
        if not count:
            raise Unproven
        self.num_units += count
        return np.arange(self.num_units - count, self.num_units)

    def pin(self, node: Node) -> None:
        """The units that `node` reads, or sizes of which it reads, stay, whatever reads them beside it."""
        self.pinned += [self.layouts[name].units for name in node.inputs if name in self.layouts]
        self.pin_counted(node.inputs)

    def pin_counted(self, names: Collection[str]) -> None:
        """The units stay that these sizes change with."""
        self.pinned += [units for name in names if name in self.counts for count in self.counts[name].ravel() for units in count.units]

    def pin_outputs(self) -> None:
        self.pinned += [self.layouts[name].units for name in self.outputs if name in self.layouts]
        self.pin_counted(self.outputs)

    def layout(self, node: Node, axis: int | None = None, *, may_repeat: bool = False) -> Layout:
        """Of the first input, which must be laid out, along `axis` where it is given."""
        layout = self.layouts.get(node.inputs[0])
        if layout is None or axis not in (None, layout.axis) or (layout.repeats and not may_repeat):
            raise Unproven
        return layout

    def own(self, node: Node, slot: int) -> tuple[Array, Stored]:
        """The float constant that `node`, and nobody else, reads in `slot`."""
        stored = self.stored.get(node.inputs[slot]) if node.has_input(slot) else None
        if stored is None or not self.is_own(stored):
            raise Unproven
        return stored.of(self.arrays), stored

    def is_own(self, stored: Stored) -> bool:
        return stored.tensor in self._floats and self._reads[stored.tensor] == 1

    def cuts_of(self, operand: Stored | None, layout: Layout) -> tuple[Cut, ...]:
        """How a constant that is broadcast against `layout` is cut with it."""
        if operand is None:
            return ()
        shape = operand.of(self.arrays).shape
        axis = len(shape) - layout.rank + layout.axis
        if len(shape) > layout.rank:
            raise Unproven
        if axis < 0 or shape[axis] == 1:
            return ()
        if layout.repeats or shape[axis] != len(layout.units) or not self.is_own(operand):
            raise Unproven
        return (Cut(operand.tensor, operand.axes[axis], layout.units),)

    def numbers(self, node: Node, slot: int) -> list[int] | None:
        """The integers of an input that is constant, or computed from constants; None where it is none, or there is no such input."""
        name = node.inputs[slot] if node.has_input(slot) else ""
        if name in self.arrays:
            array = self.arrays[name]
            return array.ravel().tolist() if np.issubdtype(array.dtype, np.integer) else None
        return plain_numbers(self.counts[name]) if name in self.counts else None

    def sizes_of(self, name: str) -> Sizes | None:
        """A size that is not known has a name of its own; None where not even the number of dimensions is known."""
        if name in self.arrays:
            return tuple(map(Size, self.arrays[name].shape))
        if name in self.sizes or name not in self._shapes:
            return self.sizes.get(name)
        named = [f"?{name}.{axis}" if size is None else size for axis, size in enumerate(self._shapes[name])]
        return tuple(Size(size) if isinstance(size, int) else Size(1, (size,)) for size in named)

    def rank(self, name: str) -> int:
        sizes = self.sizes_of(name)
        if name in self.layouts:
            return self.layouts[name].rank
        if sizes is None:
            raise Unproven
        return len(sizes)

    def counts_of(self, name: str) -> Counts | None:
        return counts_of_array(self.arrays[name]) if name in self.arrays else self.counts.get(name)

    def is_zero(self, name: str) -> bool:
        """Whether a value is 0 all over, as is where a recurrent layer begins."""
        return name in self.zeros or (name in self.arrays and not self.arrays[name].any())

    def makes_zeros(self, node: Node) -> bool:
        """Whether all that `node` gives is 0; that is taken note of."""
        if node.op_type == "ConstantOfShape":
            value = node.tensor("value")
            zero = value is None or not numpy_helper.to_array(value).any()
        else:
            zero = node.op_type in _OF_ZEROS and self.is_zero(node.inputs[0])
        if zero:
            self.zeros.add(node.outputs[0])
        return zero

    def count(self, node: Node) -> bool:
        """Whether `node` computes sizes from sizes, and nothing else; they are taken note of."""
        found = self._shape(node) if node.op_type == "Shape" else self._computed(node)
        if found is None or len(node.outputs) != 1:
            return False
        self.counts[node.outputs[0]] = found
        return True

    def _shape(self, node: Node) -> Counts | None:
        sizes, layout = self.sizes_of(node.inputs[0]), self.layouts.get(node.inputs[0])
        if sizes is None:
            return None
        own = {} if layout is None else {layout.axis: (layout.units,)}
        counts = tuple(Count(size, own.get(axis, ())) for axis, size in enumerate(sizes))
        return counts_of_sizes(counts[node.int("start", 0) : node.int("end", len(counts))])

    def _computed(self, node: Node) -> Counts | None:
        if node.op_type not in COUNTING or node.domain not in ONNX_DOMAINS:
            return None
        counts: dict[int, Counts] = {}
        for slot, name in enumerate(node.inputs):
            found = self.counts_of(name) if name else None
            if found is None and name:
                return None
            if found is not None:
                counts[slot] = found
        return computed_counts(node, counts)


Handler = Callable[[Scope, Node], Found]


def permutation(node: Node, rank: int) -> list[int]:
    return node.ints("perm") or list(reversed(range(rank)))
