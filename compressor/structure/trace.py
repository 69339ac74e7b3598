"""Which unit each position of a value belongs to, and which tensors are cut along with it.

A unit is born where a weight makes it, flows through what treats the positions of its axis one by one, is tied to the units that it is
added to or multiplied with, and ends in the weights that read it. What cannot be proven to be of this kind pins the units that it reads.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from compressor.graph.node import Node
from compressor.graph.reader import ONNX_DOMAINS
from compressor.structure import across, heads, pointwise, views, weights
from compressor.structure.grouped import grouped
from compressor.structure.lookups import lookup
from compressor.structure.recurrent import recurrent
from compressor.structure.scope import Found, Handler, Scope, Unproven
from compressor.structure.units import Cut, Step, Trace, Units


def _convolution(scope: Scope, node: Node) -> Found:
    if node.int("group", 1) == 1:
        return weights.convolution(scope, node)
    if node.op_type == "Conv" and scope.own(node, 1)[0].shape[:2] == (node.int("group", 1), 1):
        return weights.depthwise(scope, node)
    return grouped(scope, node)


def _matmul(scope: Scope, node: Node) -> Found:
    return heads.product(scope, node) if node.inputs[1] in scope.layouts else weights.matmul(scope, node)


def _gather(scope: Scope, node: Node) -> Found:
    return across.gather(scope, node) if node.inputs[0] in scope.layouts else lookup(scope, node)


_HANDLERS: dict[str, Handler] = {
    "Gemm": weights.gemm,
    "MatMul": _matmul,
    "Gather": _gather,
    "Attention": heads.attention,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **pointwise.HANDLERS,
    **views.HANDLERS,
    **across.HANDLERS,
}
_WITH_MANY_OUTPUTS = frozenset({"Split", "LSTM", "GRU", "RNN"})


def trace_units(scope: Scope) -> Trace:
    """The units of the part of a graph that its outputs need; `scope` is filled with what is found out about it."""
    steps: list[Step] = []
    cuts: list[Cut] = []
    ties: list[Units] = []
    for node in scope.nodes:
        if node.outputs[0] in scope.stored or scope.count(node):
            continue
        if scope.makes_zeros(node):
            scope.pin_counted(node.inputs)
            continue
        try:
            found = _find(scope, node)
        except Unproven:
            scope.pin(node)
            continue
        scope.pin_counted([name for name in node.inputs if name not in found.counted])
        steps += found.steps
        cuts += found.cuts
        ties += found.ties
        scope.layouts.update(found.layouts)
        scope.sizes.update(found.sizes)
    scope.pin_outputs()
    group = _groups(scope.num_units, ties)
    pinned = np.zeros(scope.num_units, np.bool_)
    for units in scope.pinned:
        pinned[group[units]] = True
    return Trace(scope.layouts, steps, cuts, group, pinned, scope.features)


def _find(scope: Scope, node: Node) -> Found:
    handler = _HANDLERS.get(node.op_type) if node.domain in ONNX_DOMAINS else None
    if handler is None:
        raise Unproven
    if node.op_type not in _WITH_MANY_OUTPUTS and any(scope.is_used(name) for name in node.outputs[1:] if name):
        raise Unproven
    return handler(scope, node)


def _groups(count: int, ties: Sequence[Units]) -> Units:
    """The number of the group of each unit."""
    if not ties:
        return np.arange(count)
    left, right = np.concatenate(ties, axis=1)
    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.intp)
