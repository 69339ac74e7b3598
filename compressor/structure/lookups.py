"""Embedding tables: their columns are units; their rows are none, since the ids that come in are what they are, but those that are 0 may
become one."""

import numpy as np

from compressor.graph.node import Node
from compressor.structure.numbers import Numbers
from compressor.structure.scope import Found, Scope, Unproven
from compressor.structure.sizes import Size
from compressor.structure.units import Array, Cut, Layout, Lookup, Mask, Units

_INDEX = np.dtype(np.int32)
_OVERHEAD_BYTES = 128  # of two nodes more in the file


def lookup(scope: Scope, node: Node) -> Found:
    array, table = scope.own(node, 0)
    places = scope.sizes_of(node.inputs[1])
    if array.ndim != 2 or node.int("axis", 0) % 2 or places is None:
        raise Unproven
    layout = Layout(len(places) + 1, len(places), scope.new(array.shape[1]))
    cuts = [Cut(table.tensor, table.axes[1], layout.units)]
    rows = scope.new(array.shape[0]) if scope.merge_rows else None
    if rows is not None:
        cuts.append(Cut(table.tensor, table.axes[0], rows))
    name = node.outputs[0]
    return Found((Lookup(node, table, layout.units, rows),), {name: layout}, tuple(cuts), sizes={name: (*places, Size(array.shape[1]))})


def looked_up(step: Lookup, arrays: dict[str, Array]) -> Numbers:
    """What each column holds, whatever is looked up."""
    table = step.table.of(arrays)
    same = table[0] == table[-1]  # tables are large; most columns are done with here
    same[same] = (table[:, same] == table[0, same]).all(0)
    return np.where(same, table[0].astype(np.float64), np.nan)


def keep_rows(step: Lookup, group: Units, stays: Mask, arrays: dict[str, Array]) -> None:
    """Lets one row of those that are 0 stay for all of them, or all where the file would not be smaller."""
    if step.rows is None:
        return
    rows, array = group[step.rows], step.table.of(arrays)
    dead = np.flatnonzero(~array.any(1))
    row_bytes = int(stays[group[step.units]].sum()) * array.itemsize
    if (len(dead) - 1) * row_bytes > len(rows) * _INDEX.itemsize + _OVERHEAD_BYTES:
        stays[rows[dead[0]]] = True
    else:
        stays[rows] = True


def new_places(kept: Mask, table: Array) -> Array:
    """Where each row is found in the smaller table, in whose only row of zeros all lie that are not kept."""
    shared = np.flatnonzero(~table.any(1))[0]
    return np.where(kept, np.cumsum(kept) - 1, shared).astype(_INDEX)
