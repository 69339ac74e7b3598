"""Which unit each position of a value belongs to, and which tensors are cut along with it.

A unit is born where a weight makes it, flows through what treats the positions of its axis one by one, is tied to the units that it is
added to or multiplied with, and ends in the weights that read it. What cannot be proven to be of this kind pins the units that it reads.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from compressor.graph.node import Node
from compressor.graph.ops.layout import casts_to_integers
from compressor.graph.ops.normalization import has_live_statistics
from compressor.graph.reader import ONNX_DOMAINS, Graph
from compressor.structure.units import Array, Cut, Depthwise, Layout, Linear, Move, Offset, Pointwise, Step, Stored, Trace, Units

Shape = tuple[int | None, ...]

# Finite everywhere, 0 included, which is what a unit that was cut is in the original graph.
_UNARY = frozenset(
    {
        *("Abs", "Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg", "PRelu", "Relu", "Selu"),
        *("Shrink", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
    }
)
_BINARY = frozenset({"Add", "Max", "Min", "Mul", "Sub"})
_SAME = frozenset({"Cast", "Dropout", "Identity"})
_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})
_VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_TO_INPUT = frozenset({"Cast", "Flatten", "Identity", "Reshape"})

_MAX_POSITIONS = 2**24  # of a value that is viewed under another shape, without its batch: 128 MiB of numbers


class _Unproven(Exception):
    """A node that is not known to treat units one by one."""


@dataclass(frozen=True)
class _Found:
    """What a node does: the layout of its output, and how it comes about."""

    step: Step | None = None
    layout: Layout | None = None
    cuts: tuple[Cut, ...] = ()
    ties: tuple[Units, ...] = ()


def trace_units(
    graph: Graph, arrays: Mapping[str, Array], floats: Collection[str], shapes: Mapping[str, Shape], *, drop_dead_inputs: bool
) -> Trace:
    """The units of the part of a graph that its outputs need.

    Args:
        graph: all of its outputs must stay as they are.
        arrays: all constants by name.
        floats: names of those that may be cut.
        shapes: of the values, as far as they are known.
        drop_dead_inputs: whether features of the graph's input are units, where one weight is all that reads them.
    """
    return _Tracer(graph, arrays, floats, shapes, drop_dead_inputs=drop_dead_inputs).trace()


class _Tracer:
    def __init__(
        self, graph: Graph, arrays: Mapping[str, Array], floats: Collection[str], shapes: Mapping[str, Shape], *, drop_dead_inputs: bool
    ) -> None:
        self._inputs = {info.name for info in graph.inputs}
        self._outputs = {info.name for info in graph.outputs}
        self._nodes = nodes = graph.needed_nodes(self._outputs)
        self._arrays, self._floats, self._shapes = arrays, floats, shapes
        self._drop_dead_inputs = drop_dead_inputs
        self._made_by = {name: node for node in nodes for name in node.outputs}
        self._stored = {name: Stored(name, tuple(range(array.ndim))) for name, array in arrays.items()}
        self._reads: Counter[str] = Counter()
        self._readers: dict[str, list[Node]] = defaultdict(list)
        self._num_units = 0
        self._layouts: dict[str, Layout] = {}
        self._features: dict[str, Units] = {}
        self._pinned: list[Units] = []

    def trace(self) -> Trace:
        self._count_reads()
        steps: list[Step] = []
        cuts: list[Cut] = []
        ties: list[Units] = []
        for node in self._nodes:
            if node.outputs[0] in self._stored:
                continue
            try:
                found = self._find(node)
            except _Unproven:
                self._pinned += [self._layouts[name].units for name in node.inputs if name in self._layouts]
                continue
            cuts += found.cuts
            ties += found.ties
            if found.step is not None and found.layout is not None:
                steps.append(found.step)
                self._layouts[node.outputs[0]] = found.layout
        self._pinned += [self._layouts[name].units for name in self._outputs if name in self._layouts]
        group = _groups(self._num_units, ties)
        stays = np.zeros(self._num_units, np.bool_)
        for units in self._pinned:
            stays[group[units]] = True
        return Trace(self._layouts, steps, cuts, group, stays, self._features)

    def _count_reads(self) -> None:
        """How often each constant is read, Transpose and Identity looked through, and who reads a value."""
        for node in self._nodes:
            for name in filter(None, node.inputs):
                self._readers[name].append(node)
            turns = node.op_type in ("Identity", "Transpose") and node.domain in ONNX_DOMAINS
            seen = self._stored.get(node.inputs[0]) if turns else None
            if seen is not None and seen.tensor in self._floats:
                perm = range(len(seen.axes)) if node.op_type == "Identity" else _permutation(node, len(seen.axes))
                self._stored[node.outputs[0]] = Stored(seen.tensor, tuple(seen.axes[axis] for axis in perm))
                continue
            self._reads.update(self._stored[name].tensor for name in node.inputs if name in self._stored)
        for name in self._outputs:
            if name in self._stored:
                self._reads[self._stored[name].tensor] += 2  # it is not ours alone

    def _find(self, node: Node) -> _Found:
        if node.domain not in ONNX_DOMAINS or any(name in self._readers or name in self._outputs for name in node.outputs[1:] if name):
            raise _Unproven
        match node.op_type:
            case "Gemm" if not node.int("transA", 0):
                inward = 1 if node.int("transB", 0) else 0
                return self._linear(node, 2, 1, inward, node.float("alpha", 1.0), node.float("beta", 1.0))
            case "MatMul":
                rank = self._rank(node.inputs[0])
                return self._linear(node, rank, rank - 1, 0)
            case "Conv" if node.int("group", 1) == 1:
                return self._linear(node, self._own(node, 1)[0].ndim, 1, 1, padded=_is_padded(node))
            case "ConvTranspose" if node.int("group", 1) == 1:
                return self._linear(node, self._own(node, 1)[0].ndim, 1, 0, padded=True)
            case "Conv":
                return self._depthwise(node)
            case "BatchNormalization" if not has_live_statistics(node) and node.float("epsilon", 1e-5) > 0:
                return self._batch_normalization(node)
            case "Div" if node.inputs[1] in self._stored and self._stored_array(node.inputs[1]).size == 1:
                return self._pointwise(node)
            case "Pow" if node.inputs[1] in self._stored and (exponent := self._stored_array(node.inputs[1])).size == 1 and exponent > 0:
                return self._pointwise(node)
            case name if name in _BINARY or (name in _UNARY and node.inputs[0] in self._layouts):
                return self._pointwise(node)
            case name if name in _SAME and not casts_to_integers(node):
                return self._move(node, self._layout(node))
            case name if name in _POOLS:
                layout = self._layout(node, axis=1)
                counts_padding = bool(node.int("ceil_mode", 0)) or (_is_padded(node) and bool(node.int("count_include_pad", 0)))
                return self._move(node, layout, blurs=name == "AveragePool" and counts_padding)
            case name if name in _REDUCTIONS:
                return self._reduction(node)
            case "Transpose":
                layout = self._layout(node)
                return self._move(node, replace(layout, axis=_permutation(node, layout.rank).index(layout.axis)))
            case name if name in _VIEWS:
                return self._view(node)
            case "Concat":
                return self._concat(node)
            case "Shape" if self._reads_other_sizes(node):
                return _Found()
        raise _Unproven

    def _linear(
        self, node: Node, rank: int, axis: int, inward: int, alpha: float = 1.0, beta: float = 1.0, *, padded: bool = False
    ) -> _Found:
        array, weight = self._own(node, 1)
        if array.ndim != 2 and not node.op_type.startswith("Conv"):
            raise _Unproven
        outward = 1 - inward
        read = self._layouts.get(node.inputs[0])
        if read is not None and (read.rank, read.axis, len(read.units)) != (rank, axis, array.shape[inward]):
            raise _Unproven
        layout = Layout(rank, axis, self._new(array.shape[outward]))
        bias, bias_layout = self._bias(node), self._bias_layout(node, layout)
        cuts = [Cut(weight.tensor, weight.axes[outward], layout.units), *self._cuts_of(bias, bias_layout)]
        units = read.units if read is not None else self._features_of(node, array.shape[inward])
        if units is not None:
            cuts.append(Cut(weight.tensor, weight.axes[inward], units))
        offset = self._offset(node, bias, layout, beta)
        step = Linear(node, weight, inward, outward, units, bias, bias_layout, alpha, beta, padded, offset)
        return _Found(step, layout, tuple(cuts))

    def _bias(self, node: Node) -> Stored | None:
        if not node.has_input(2):
            return None
        if node.inputs[2] not in self._stored:
            raise _Unproven
        return self._stored[node.inputs[2]]

    def _bias_layout(self, node: Node, layout: Layout) -> Layout:
        """What the bias of `node` is broadcast against."""
        return Layout(1, 0, layout.units) if node.op_type.startswith("Conv") else layout

    def _features_of(self, node: Node, size: int) -> Units | None:
        """New units for the features that a Gemm or MatMul reads of the graph's input, if nothing else reads it, and it may be cut."""
        if not self._drop_dead_inputs or node.op_type not in ("Gemm", "MatMul"):
            return None
        name = node.inputs[0]
        while sum(reader.op_type != "Shape" for reader in self._readers[name]) == 1 and name not in self._outputs:
            if name in self._inputs:
                self._features[node.outputs[0]] = self._new(size)
                return self._features[node.outputs[0]]
            maker = self._made_by.get(name)
            if maker is None or maker.op_type not in _TO_INPUT:
                break
            name = maker.inputs[0]
        return None

    def _offset(self, node: Node, bias: Stored | None, layout: Layout, beta: float) -> Offset | None:
        """Where a constant can go that is to be added to what `node` gives."""
        along = layout
        place, factor = bias, 1 / beta if beta else 0.0
        readers = self._readers[node.outputs[0]]
        if bias is not None:
            along = self._bias_layout(node, layout)
        elif len(readers) == 1 and node.outputs[0] not in self._outputs:
            match readers[0].op_type:
                case "Add":
                    left, right = readers[0].inputs
                    place, factor = self._stored.get(right if left == node.outputs[0] else left), 1.0
                case "BatchNormalization" if layout.axis == 1 and not has_live_statistics(readers[0]):
                    place, factor, along = self._stored.get(readers[0].inputs[3]), -1.0, Layout(1, 0, layout.units)
        if place is None or not factor or not self._is_own(place):
            return None
        shape = place.of(self._arrays).shape
        axis = len(shape) - along.rank + along.axis
        fits = 0 <= axis < len(shape) <= along.rank and shape[axis] == math.prod(shape) == len(layout.units)
        return Offset(place, factor) if fits else None

    def _depthwise(self, node: Node) -> _Found:
        array, weight = self._own(node, 1)
        layout = self._layout(node, axis=1)
        if not node.int("group", 1) == array.shape[0] == len(layout.units) or array.shape[1] != 1:
            raise _Unproven
        bias = self._bias(node)
        cuts = (Cut(weight.tensor, weight.axes[0], layout.units), *self._cuts_of(bias, self._bias_layout(node, layout)))
        return _Found(Depthwise(node, weight, bias, _is_padded(node)), layout, cuts)

    def _batch_normalization(self, node: Node) -> _Found:
        layout = self._layout(node, axis=1)
        operands = [self._own(node, slot)[1] for slot in range(1, 5)]
        along = Layout(1, 0, layout.units)
        cuts = [cut for operand in operands for cut in self._cuts_of(operand, along)]
        return _Found(Pointwise(node, layout, (None, *operands)), layout, tuple(cuts))

    def _pointwise(self, node: Node) -> _Found:
        values = [self._layouts[name] for name in node.inputs if name in self._layouts]
        operands = tuple(self._stored.get(name) for name in node.inputs)
        if (
            not values
            or (len(values) > 1 and node.op_type not in _BINARY)
            or any(name and name not in self._layouts and name not in self._stored for name in node.inputs)
        ):
            raise _Unproven
        layout = values[0]
        if any((other.rank, other.axis, len(other.units)) != (layout.rank, layout.axis, len(layout.units)) for other in values):
            raise _Unproven
        cuts = tuple(cut for operand in operands for cut in self._cuts_of(operand, layout))
        ties = tuple(np.stack([layout.units, other.units]) for other in values[1:])
        return _Found(Pointwise(node, layout, operands), layout, cuts, ties)

    def _reduction(self, node: Node) -> _Found:
        layout = self._layout(node)
        axes = node.ints("axes")
        if node.has_input(1) and node.inputs[1] in self._arrays:
            axes = self._arrays[node.inputs[1]].ravel().tolist()
        reduced = {axis % layout.rank for axis in axes or ()}
        if not reduced or layout.axis in reduced:
            raise _Unproven
        if not node.int("keepdims", 1):
            before = sum(axis < layout.axis for axis in reduced)
            layout = Layout(layout.rank - len(reduced), layout.axis - before, layout.units)
        return self._move(node, layout, blurs=node.op_type == "ReduceSum")

    def _view(self, node: Node) -> _Found:
        """The same numbers in the same order under another shape."""
        layout = self._layout(node)
        given, made = self._shapes.get(node.inputs[0], ()), self._viewed_shape(node)
        if len(given) != layout.rank or given[layout.axis] != len(layout.units) or not made:
            raise _Unproven
        rest, new_rest = _static(given[1:]), _static(made[1:])
        if layout.axis > 0 and rest and new_rest and 0 < math.prod(rest) == math.prod(new_rest) <= _MAX_POSITIONS:
            return self._batchwise_view(node, layout, rest, new_rest)
        last = len(made) - 1
        if layout.axis != layout.rank - 1 or made[last] != len(layout.units) or not last:
            raise _Unproven
        moved = Layout(len(made), last, layout.units)
        if node.op_type != "Reshape":
            return self._move(node, moved)
        if node.inputs[1] not in self._arrays:
            raise _Unproven
        return self._move(node, moved, target=(tuple(self._arrays[node.inputs[1]].tolist()), last))

    def _batchwise_view(self, node: Node, layout: Layout, rest: tuple[int, ...], new_rest: tuple[int, ...]) -> _Found:
        """The first axis stays. The units must lie along one of the new axes."""
        shape = [1] * len(rest)
        shape[layout.axis - 1] = -1
        positions = np.broadcast_to(np.arange(len(layout.units)).reshape(shape), rest).reshape(new_rest)
        for axis, size in enumerate(new_rest):
            lines = np.moveaxis(positions, axis, 0).reshape(size, -1)
            if (lines == lines[:, :1]).all():
                source = lines[:, 0]
                target = ((-1, *new_rest), axis + 1) if node.op_type == "Reshape" else None
                moved = Layout(len(new_rest) + 1, axis + 1, layout.units[source])
                return _Found(Move(node, (len(layout.units),), source, target=target), moved)
        raise _Unproven

    def _viewed_shape(self, node: Node) -> Shape:
        """The shape that a view gives; where inference does not say, the weights that read it may."""
        made = self._shapes.get(node.outputs[0], ())
        readers = self._readers[node.outputs[0]]
        if (made and None not in made[1:]) or not readers or len(made) not in (0, 2):
            return made
        reader = readers[0]
        if (
            reader.op_type != "Gemm"
            or reader.inputs[0] != node.outputs[0]
            or reader.int("transA", 0)
            or reader.inputs[1] not in self._stored
        ):
            return made
        return None, self._stored_array(reader.inputs[1]).shape[1 if reader.int("transB", 0) else 0]

    def _concat(self, node: Node) -> _Found:
        values = [self._layouts[name] for name in node.inputs if name in self._layouts]
        if not values:
            raise _Unproven
        rank, axis = values[0].rank, values[0].axis
        if any((other.rank, other.axis) != (rank, axis) for other in values) or node.int("axis", 0) % rank != axis:
            raise _Unproven
        parts = [self._layouts[name].units if name in self._layouts else self._untold(name, rank, axis) for name in node.inputs]
        units = np.concatenate(parts)
        return _Found(Move(node, tuple(map(len, parts)), np.arange(len(units))), Layout(rank, axis, units))

    def _untold(self, name: str, rank: int, axis: int) -> Units:
        """New units that stay, for a value that none are known of."""
        size = (self._shapes.get(name) or (None,) * rank)[axis]
        if size is None:
            raise _Unproven
        units = self._new(size)
        self._pinned.append(units)
        return units

    def _move(self, node: Node, layout: Layout, *, blurs: bool = False, target: tuple[tuple[int, ...], int] | None = None) -> _Found:
        return _Found(Move(node, (len(layout.units),), np.arange(len(layout.units)), blurs, target), layout)

    def _reads_other_sizes(self, node: Node) -> bool:
        """Whether of a Shape only sizes are used that are not how many units there are."""
        layout = self._layout(node)
        start, end = node.int("start", 0), node.int("end", layout.rank)
        axes = list(range(layout.rank))[start:end]
        if layout.axis not in axes:
            return True
        readers = self._readers[node.outputs[0]]
        if node.outputs[0] in self._outputs or any(
            reader.op_type != "Gather" or reader.inputs[1] not in self._arrays for reader in readers
        ):
            return False
        return all(axes[int(index)] != layout.axis for reader in readers for index in self._arrays[reader.inputs[1]].ravel())

    def _layout(self, node: Node, axis: int | None = None) -> Layout:
        """Of the first input, which must be laid out, along `axis` where it is given."""
        layout = self._layouts.get(node.inputs[0])
        if layout is None or axis not in (None, layout.axis):
            raise _Unproven
        return layout

    def _own(self, node: Node, slot: int) -> tuple[Array, Stored]:
        """The float constant that `node`, and nobody else, reads in `slot`."""
        stored = self._stored.get(node.inputs[slot]) if node.has_input(slot) else None
        if stored is None or not self._is_own(stored):
            raise _Unproven
        return stored.of(self._arrays), stored

    def _is_own(self, stored: Stored) -> bool:
        return stored.tensor in self._floats and self._reads[stored.tensor] == 1

    def _stored_array(self, name: str) -> Array:
        return self._stored[name].of(self._arrays)

    def _cuts_of(self, operand: Stored | None, layout: Layout) -> tuple[Cut, ...]:
        """How a constant that is broadcast against `layout` is cut with it."""
        if operand is None:
            return ()
        shape = operand.of(self._arrays).shape
        axis = len(shape) - layout.rank + layout.axis
        if len(shape) > layout.rank:
            raise _Unproven
        if axis < 0 or shape[axis] == 1:
            return ()
        if shape[axis] != len(layout.units) or not self._is_own(operand):
            raise _Unproven
        return (Cut(operand.tensor, operand.axes[axis], layout.units),)

    def _rank(self, name: str) -> int:
        rank = self._layouts[name].rank if name in self._layouts else len(self._shapes.get(name, ()))
        if rank < 2:
            raise _Unproven
        return rank

    def _new(self, count: int) -> Units:
        if not count:
            raise _Unproven
        self._num_units += count
        return np.arange(self._num_units - count, self._num_units)


def _permutation(node: Node, rank: int) -> list[int]:
    return node.ints("perm") or list(reversed(range(rank)))


def _is_padded(node: Node) -> bool:
    """Whether zeros, or nothing at all, stand around what the window sees."""
    return any(node.ints("pads") or ()) or node.string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _static(shape: Shape) -> tuple[int, ...] | None:
    sizes = tuple(size for size in shape if size is not None)
    return sizes if len(sizes) == len(shape) else None


def _groups(count: int, ties: Sequence[Units]) -> Units:
    """The number of the group of each unit."""
    if not ties:
        return np.arange(count)
    left, right = np.concatenate(ties, axis=1)
    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.intp)
