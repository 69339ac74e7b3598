"""Embedding tables: their columns are units; their rows are none (but see rows.py), since the ids that come in are what they are."""

import numpy as np

from compressor.graph.node import Node
from compressor.structure.numbers import Numbers
from compressor.structure.scope import Found, Scope, Unproven
from compressor.structure.sizes import Size
from compressor.structure.units import Array, Cut, Layout, Lookup


def lookup(scope: Scope, node: Node) -> Found:
    array, table = scope.own(node, 0)
    places = scope.sizes_of(node.inputs[1])
    if array.ndim != 2 or node.int("axis", 0) % 2 or places is None:
        raise Unproven
    layout, name = Layout(len(places) + 1, len(places), scope.new(array.shape[1])), node.outputs[0]
    cuts = (Cut(table.tensor, table.axes[1], layout.units),)
    return Found((Lookup(node, table),), {name: layout}, cuts, sizes={name: (*places, Size(array.shape[1]))})


def looked_up(step: Lookup, arrays: dict[str, Array]) -> Numbers:
    """What each column holds, whatever is looked up."""
    table = step.table.of(arrays)
    same = table[0] == table[-1]  # tables are large; most columns are done with here
    same[same] = (table[:, same] == table[0, same]).all(0)
    return np.where(same, table[0].astype(np.float64), np.nan)
