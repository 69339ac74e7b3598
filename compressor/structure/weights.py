"""Where units are born and read: matrix products and convolutions with a weight."""

import math
from collections.abc import Mapping

from compressor.graph.node import Node
from compressor.graph.ops.normalization import has_live_statistics
from compressor.structure.scope import Found, Scope, Unproven
from compressor.structure.sizes import Size, Sizes
from compressor.structure.units import Cut, Depthwise, Layout, Linear, Offset, Stored, Units

_TO_INPUT = frozenset({"Cast", "Flatten", "Identity", "Reshape"})


def gemm(scope: Scope, node: Node) -> Found:
    if node.int("transA", 0):
        raise Unproven
    inward = 1 if node.int("transB", 0) else 0
    return _linear(scope, node, 2, 1, inward, node.float("alpha", 1.0), node.float("beta", 1.0))


def matmul(scope: Scope, node: Node) -> Found:
    rank = scope.rank(node.inputs[0])
    if rank < 2 or scope.own(node, 1)[0].ndim != 2:
        raise Unproven
    return _linear(scope, node, rank, rank - 1, 0)


def convolution(scope: Scope, node: Node) -> Found:
    """One that is not in groups."""
    transposed = node.op_type == "ConvTranspose"
    array, _ = scope.own(node, 1)
    return _linear(scope, node, array.ndim, 1, 0 if transposed else 1, padded=transposed or is_padded(node))


def depthwise(scope: Scope, node: Node) -> Found:
    """One with a filter for each channel."""
    array, weight = scope.own(node, 1)
    layout = scope.layout(node, axis=1)
    if not node.int("group", 1) == array.shape[0] == len(layout.units) or array.shape[1] != 1:
        raise Unproven
    bias = bias_of(scope, node)
    cuts = (Cut(weight.tensor, weight.axes[0], layout.units), *scope.cuts_of(bias, bias_layout(node, layout)))
    return Found((Depthwise(node, weight, bias, is_padded(node)),), {node.outputs[0]: layout}, cuts)


def _linear(
    scope: Scope, node: Node, rank: int, axis: int, inward: int, alpha: float = 1.0, beta: float = 1.0, *, padded: bool = False
) -> Found:
    array, weight = scope.own(node, 1)
    outward = 1 - inward
    read = scope.layouts.get(node.inputs[0])
    if read is not None and not read.has(rank, axis, array.shape[inward]):
        raise Unproven
    layout = Layout(rank, axis, scope.new(array.shape[outward]))
    bias, along = bias_of(scope, node), bias_layout(node, layout)
    cuts = [Cut(weight.tensor, weight.axes[outward], layout.units)]
    try:
        cuts += scope.cuts_of(bias, along)
    except Unproven:  # exporters write equal biases once: units of what is read in two places stay
        scope.pinned.append(layout.units)
    units = read.units if read is not None else _features_of(scope, node, array.shape[inward])
    if units is not None:
        cuts.append(Cut(weight.tensor, weight.axes[inward], units))
    step = Linear(node, weight, inward, outward, units, bias, along, alpha, beta, padded, offset_of(scope, node, bias, layout, beta))
    return Found((step,), {node.outputs[0]: layout}, tuple(cuts), sizes=_sizes(scope, node, layout))


def _sizes(scope: Scope, node: Node, layout: Layout) -> Mapping[str, Sizes]:
    """Of a product; those of a convolution are left to inference."""
    read = scope.sizes_of(node.inputs[0])
    if node.op_type not in ("Gemm", "MatMul") or read is None:
        return {}
    return {node.outputs[0]: (*read[:-1], Size(len(layout.units)))}


def bias_of(scope: Scope, node: Node) -> Stored | None:
    if not node.has_input(2):
        return None
    if node.inputs[2] not in scope.stored:
        raise Unproven
    return scope.stored[node.inputs[2]]


def bias_layout(node: Node, layout: Layout) -> Layout:
    """What the bias of `node` is broadcast against."""
    return Layout(1, 0, layout.units) if node.op_type.startswith("Conv") else layout


def _features_of(scope: Scope, node: Node, size: int) -> Units | None:
    """New units for the features that a Gemm or MatMul reads of the graph's input, if nothing else reads it, and it may be cut."""
    if not scope.drop_dead_inputs or node.op_type not in ("Gemm", "MatMul"):
        return None
    name = node.inputs[0]
    while sum(reader.op_type != "Shape" for reader in scope.readers(name)) == 1 and name not in scope.outputs:
        if name in scope.inputs:
            scope.features[node.outputs[0]] = scope.new(size)
            return scope.features[node.outputs[0]]
        maker = scope.made_by.get(name)
        if maker is None or maker.op_type not in _TO_INPUT:
            break
        name = maker.inputs[0]
    return None


def offset_of(scope: Scope, node: Node, bias: Stored | None, layout: Layout, beta: float = 1.0) -> Offset | None:
    """Where a constant can go that is to be added to what `node` gives."""
    along = layout
    place, factor = bias, 1 / beta if beta else 0.0
    readers = scope.readers(node.outputs[0])
    if bias is not None:
        along = bias_layout(node, layout)
    elif len(readers) == 1 and node.outputs[0] not in scope.outputs:
        match readers[0].op_type:
            case "Add":
                left, right = readers[0].inputs
                place, factor = scope.stored.get(right if left == node.outputs[0] else left), 1.0
            case "BatchNormalization" if layout.axis == 1 and not has_live_statistics(readers[0]):
                place, factor, along = scope.stored.get(readers[0].inputs[3]), -1.0, Layout(1, 0, layout.units)
    if place is None or not factor or not scope.is_own(place):
        return None
    shape = place.of(scope.arrays).shape
    axis = len(shape) - along.rank + along.axis
    fits = 0 <= axis < len(shape) <= along.rank and shape[axis] == math.prod(shape) == len(layout.units)
    return Offset(place, factor) if fits else None


def is_padded(node: Node) -> bool:
    """Whether zeros, or nothing at all, stand around what the window sees."""
    return any(node.ints("pads") or ()) or node.string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
