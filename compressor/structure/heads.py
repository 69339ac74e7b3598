"""Attention: a head is a unit, of which query, key and value have several numbers each.

Where the product that makes them is split into heads, the numbers of a head become one unit (compressor.structure.views), which passes the
products of queries, keys and values as one of their batch does.
"""

import numpy as np

from compressor.graph.node import Node
from compressor.structure.numbers import Numbers, alike, along, spread
from compressor.structure.pointwise import broadcast_sizes, same_kind, varies_by_unit
from compressor.structure.scope import Found, Scope, Unproven
from compressor.structure.sizes import Sizes
from compressor.structure.units import Attend, Layout, Product, Units


def product(scope: Scope, node: Node) -> Found:
    """A product of two values, for each unit by itself."""
    left, right = (scope.layouts.get(name) for name in node.inputs)
    if left is None or right is None or not same_kind(left, right) or left.axis >= left.rank - 2:
        raise Unproven
    ties = (np.stack([left.units, right.units]),)
    # A row of scores that are all minus infinity is no distribution but NaN: of the output that a graph has then, nothing is to be kept.
    step = Product(node, node.inputs[0] in scope.distributions)
    return Found((step,), {node.outputs[0]: left}, ties=ties, sizes=_sizes(scope, node))


def _sizes(scope: Scope, node: Node) -> dict[str, Sizes]:
    left, right = (scope.sizes_of(name) for name in node.inputs)
    batch = broadcast_sizes(scope, node)
    return {} if left is None or right is None or batch is None else {node.outputs[0]: (*batch[:-2], left[-2], right[-1])}


def multiplied(step: Product, left: Numbers, right: Numbers) -> Numbers:
    """What a product holds: 0 where one factor does, and what the right one holds all along where the left one only takes means of it."""
    left, right = alike(left, [left.ndim - 1]), alike(right, [right.ndim - 2])
    held = right if step.takes_means else np.full_like(right, np.nan)
    return np.where((left == 0) | (right == 0), 0.0, held)


def attention(scope: Scope, node: Node) -> Found:
    """The operator of opset 23, without keys and values of former steps."""
    if any(node.has_input(slot) for slot in range(4, len(node.inputs))):
        raise Unproven
    query, key, value = (_by_head(scope, node, slot) for slot in range(3))
    rank, sharing = scope.rank(node.inputs[0]), len(query) // len(key)
    if len(key) != len(value) or len(query) != sharing * len(key) or {scope.rank(name) for name in node.inputs[:3]} != {rank}:
        raise Unproven
    if node.has_input(3) and varies_by_unit(scope, node.inputs[3], Layout(4, 1, query[:, 0])):
        raise Unproven
    together = np.concatenate([query.reshape(len(key), -1), key, value], 1)
    ties = np.stack([np.repeat(value[:, 0], together.shape[1]), together.ravel()])
    heads = np.repeat(value[:, 0], sharing)
    layout = Layout(4, 1, heads) if rank == 4 else Layout(3, 2, np.repeat(heads, value.shape[1]))
    return Found((Attend(node, sharing, not node.has_input(3)),), {node.outputs[0]: layout}, ties=(ties,))


def _by_head(scope: Scope, node: Node, slot: int) -> Units:
    """The units of query, key or value: [heads, units of a head]."""
    layout, heads = scope.layouts.get(node.inputs[slot]), num_heads(node, slot)
    if layout is not None and layout.has(4, 1, len(layout.units)):
        return layout.units[:, None]
    if layout is None or not layout.has(3, 2, len(layout.units)) or heads < 1 or len(layout.units) % heads:
        raise Unproven
    return layout.units.reshape(heads, -1)


def num_heads(node: Node, slot: int) -> int:
    """Of query, key or value, as three dimensions have them."""
    return node.int("kv_num_heads" if slot else "q_num_heads", 0)


def attended(step: Attend, value: Numbers, layout: Layout, made: Layout) -> Numbers:
    """What attention holds: what its values hold all along; `layout` is theirs, `made` that of the output."""
    if layout.rank == 4:
        held = alike(value, [2])
        held = np.repeat(held, step.sharing, 1) if held.shape[1] > 1 else held
    else:
        by_head = along(value, layout).reshape(num_heads(step.node, 2), -1)
        held = spread(np.repeat(by_head, step.sharing, 0).ravel(), made)
    return held if step.takes_means else np.where(held == 0, held, np.nan)
