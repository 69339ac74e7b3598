"""What treats the positions of an axis one by one: arithmetic, activations, normalisation by stored statistics, pooling, reductions."""

from collections.abc import Mapping, Set

import numpy as np
from onnx import TensorProto

from compressor.graph.node import Node
from compressor.graph.ops.layout import casts_to_integers
from compressor.graph.ops.normalization import has_live_statistics
from compressor.structure.scope import Found, Handler, Scope, Unproven
from compressor.structure.sizes import ONE, Size, Sizes
from compressor.structure.units import Keeps, Layout, Move, Pointwise, Target, Turn
from compressor.structure.weights import is_padded

# Finite everywhere, 0 included, which is what a unit that was cut is in the original graph.
_UNARY = (
    *("Abs", "Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg", "PRelu", "Relu", "Selu"),
    *("Shrink", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
)
_BINARY = ("Add", "Max", "Min", "Mul", "Sub")
_SAME = ("Dropout", "Identity")
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


def _unary(scope: Scope, node: Node) -> Found:
    if node.inputs[0] not in scope.layouts:
        raise Unproven
    return _pointwise(scope, node)


def _divided(scope: Scope, node: Node) -> Found:
    divisor = scope.stored.get(node.inputs[1])
    if divisor is None or divisor.of(scope.arrays).size != 1:
        raise Unproven
    return _pointwise(scope, node)


def _power(scope: Scope, node: Node) -> Found:
    exponent = scope.stored.get(node.inputs[1])
    if exponent is None or exponent.of(scope.arrays).size != 1 or exponent.of(scope.arrays) <= 0:
        raise Unproven
    return _pointwise(scope, node)


def _pointwise(scope: Scope, node: Node) -> Found:
    values = [scope.layouts[name] for name in node.inputs if name in scope.layouts]
    if not values or (len(values) > 1 and node.op_type not in (*_BINARY, "Where")):
        raise Unproven
    layout = values[0]
    if not all(same_kind(layout, other) for other in values):
        raise Unproven
    for name in node.inputs:
        if name and name not in scope.layouts and name not in scope.stored and varies_by_unit(scope, name, layout):
            raise Unproven
    operands = tuple(scope.stored.get(name) for name in node.inputs)
    cuts = tuple(cut for operand in operands for cut in scope.cuts_of(operand, layout))
    ties = tuple(np.stack([layout.units, other.units]) for other in values[1:])
    sizes = broadcast_sizes(scope, node)
    return Found(
        (Pointwise(node, layout, operands),), {node.outputs[0]: layout}, cuts, ties, {} if sizes is None else {node.outputs[0]: sizes}
    )


def same_kind(layout: Layout, other: Layout) -> bool:
    """Whether units lie in the same places."""
    kinds = [(each.rank, each.axis, len(each.units), each.repeats) for each in (layout, other)]
    return kinds[0] == kinds[1]


def varies_by_unit(scope: Scope, name: str, layout: Layout) -> bool:
    """Whether a value that is broadcast against `layout` may hold different numbers for different units."""
    sizes = scope.sizes_of(name)
    axis = layout.axis - layout.rank + (0 if sizes is None else len(sizes))
    return sizes is None or len(sizes) > layout.rank or (axis >= 0 and sizes[axis] != ONE)


def broadcast_sizes(scope: Scope, node: Node) -> Sizes | None:
    """Of the output of a node whose inputs are broadcast against each other."""
    found = [sizes for name in node.inputs if name for sizes in [scope.sizes_of(name)] if sizes is not None]
    if not found or len(found) < sum(1 for name in node.inputs if name):
        return None
    rank = max(map(len, found))
    columns = zip(*[(ONE,) * (rank - len(sizes)) + sizes for sizes in found], strict=True)
    return tuple(_joined(set(column) - {ONE}, f"?{node.outputs[0]}.{axis}") for axis, column in enumerate(columns))


def _joined(sizes: Set[Size], name: str) -> Size:
    """Of several that have names, any may be 1."""
    numbers = [size for size in sizes if size.number is not None]
    if numbers or len(sizes) < 2:
        return next(iter(numbers or sizes), ONE)
    return Size(1, (name,))


def _batch_normalization(scope: Scope, node: Node) -> Found:
    if has_live_statistics(node) or node.float("epsilon", 1e-5) <= 0:
        raise Unproven
    layout = scope.layout(node, axis=1)
    operands = [scope.own(node, slot)[1] for slot in range(1, 5)]
    along = Layout(1, 0, layout.units)
    cuts = [cut for operand in operands for cut in scope.cuts_of(operand, along)]
    return Found((Pointwise(node, layout, (None, *operands)),), {node.outputs[0]: layout}, tuple(cuts))


def _cast(scope: Scope, node: Node) -> Found:
    if casts_to_integers(node):
        raise Unproven
    same = _same(scope, node)
    if node.int("to", 0) in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return same
    return moved(node, same.layouts[node.outputs[0]], Keeps.ZERO, same.sizes)  # other numbers are rounded


def _same(scope: Scope, node: Node) -> Found:
    layout = scope.layout(node, may_repeat=True)
    sizes = scope.sizes_of(node.inputs[0])
    found = Turn(node, tuple(range(layout.rank)))
    if node.inputs[0] in scope.distributions:
        scope.distributions.add(node.outputs[0])
    return Found((found,), {node.outputs[0]: layout}, sizes={} if sizes is None else {node.outputs[0]: sizes})


def _pool(scope: Scope, node: Node) -> Found:
    counts_padding = bool(node.int("ceil_mode", 0)) or (is_padded(node) and bool(node.int("count_include_pad", 0)))
    keeps = Keeps.ZERO if node.op_type == "AveragePool" and counts_padding else Keeps.ALL
    if is_padded(node) and any(step > 1 for step in node.ints("dilations") or ()):
        keeps = Keeps.NOTHING  # a window may lie in the padding with all that it sees
    return moved(node, scope.layout(node, axis=1), keeps)


def _reduction(scope: Scope, node: Node) -> Found:
    layout = scope.layout(node)
    axes = node.ints("axes") or scope.numbers(node, 1)
    reduced = {axis % layout.rank for axis in axes or ()}
    if not reduced or layout.axis in reduced:
        raise Unproven
    if not node.int("keepdims", 1):
        before = sum(axis < layout.axis for axis in reduced)
        layout = Layout(layout.rank - len(reduced), layout.axis - before, layout.units)
    return moved(node, layout, Keeps.ZERO if node.op_type == "ReduceSum" else Keeps.ALL)


def moved(
    node: Node, layout: Layout, keeps: Keeps = Keeps.ALL, sizes: Mapping[str, Sizes] | None = None, target: Target | None = None
) -> Found:
    """The same units at the same positions of the axis, which may be another one."""
    step = Move(node, (len(layout.units),), np.arange(len(layout.units)), keeps, target)
    return Found((step,), {node.outputs[0]: layout}, sizes=sizes or {})


def _cast_like(scope: Scope, node: Node) -> Found:
    """Of the second input, only the type is read."""
    sizes = scope.sizes_of(node.inputs[0])
    if node.inputs[0] in scope.layouts:
        raise Unproven
    return Found(sizes={} if sizes is None else {node.outputs[0]: sizes})


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _pointwise),
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "Cast": _cast,
    "Div": _divided,
    "Pow": _power,
    "CastLike": _cast_like,
    "Where": _pointwise,
    "BatchNormalization": _batch_normalization,
}
