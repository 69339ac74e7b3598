"""Constants folded forward and zeros drawn backward, in the arrays, until nothing changes."""

from collections.abc import Sequence

import numpy as np

from compressor.structure.constants import fold, inward_first, rows
from compressor.structure.grouped import keep_in_step, read_by_groups, zero_places
from compressor.structure.lookups import keep_rows
from compressor.structure.recurrent import read_by_recurrent
from compressor.structure.units import Array, Grouped, Linear, Lookup, Mask, Recurrent, Trace, Units


def settle(trace: Trace, arrays: dict[str, Array]) -> Mask:
    """Which units stay, by number.

    What a unit without live inputs holds is added to the biases that can take it, and its readers' weights are zeroed; where it is 0,
    they are zeroed alone. All tensors are zeroed for units that nobody reads. One unit of each value stays in any case.

    Args:
        trace: of the units of a graph.
        arrays: all of its constants. They are changed such that its outputs stay the same.
    """
    while True:
        changed = fold(trace, arrays)
        live = _live(trace, arrays)
        changed |= _zero(trace, live[trace.group], arrays)
        if not changed:
            return _closed(trace, live, arrays)[trace.group]


def _live(trace: Trace, arrays: dict[str, Array]) -> Mask:
    """Which groups of units somebody reads; units that are read by nobody but each other are not live."""
    live, loops = trace.pinned.copy(), []
    for step in trace.steps:
        match step:
            case Linear(units=units) if units is not None:
                live[trace.group[units[rows(inward_first(step, arrays))]]] = True
            case Grouped(read=units):
                read, places = read_by_groups(step, arrays)
                live[trace.group[step.shared[places]]] = True
                if units is not None:
                    live[trace.group[units[read]]] = True
            case Recurrent(read=units):
                read, reads = read_by_recurrent(step, arrays)
                loops.append((trace.group[step.units], reads))
                if units is not None:
                    live[trace.group[units[read]]] = True
            case Lookup(rows=units) if units is not None:
                live[trace.group[units[step.table.of(arrays).any(1)]]] = True
            case _:
                pass
    return _spread(live, loops)


def _spread(live: Mask, loops: Sequence[tuple[Units, Mask]]) -> Mask:
    """With the units that a live one of a recurrent layer reads."""
    while True:
        before = int(live.sum())
        for groups, reads in loops:
            live[groups[reads[live[groups]].any(0)]] = True
        if int(live.sum()) == before:
            return live


def _zero(trace: Trace, live: Mask, arrays: dict[str, Array]) -> bool:
    """Zeroes all tensors for dead units; `live` is by unit. Returns: whether there was anything."""
    changed = False
    for cut in trace.cuts:
        part = np.moveaxis(arrays[cut.tensor], cut.axis, 0)
        dead = ~live[cut.units]
        if part[dead].any():
            part[dead] = 0
            changed = True
    for step in trace.steps:
        if isinstance(step, Grouped):
            changed |= zero_places(step, live, arrays)
    return changed


def _closed(trace: Trace, live: Mask, arrays: dict[str, Array]) -> Mask:
    """The groups of units that stay: the live ones, and some more, since no size may become 0, and groups of channels must be alike."""
    stays, before = live.copy(), -1
    while int(stays.sum()) > before:
        before = int(stays.sum())
        for units in (*(layout.units for layout in trace.layouts.values()), *trace.features.values()):
            groups = trace.group[units]
            if not stays[groups].any():
                stays[groups[0]] = True
        for step in trace.steps:
            if isinstance(step, Grouped):
                keep_in_step(step, trace.group, stays)
    for step in trace.steps:
        if isinstance(step, Lookup):
            keep_rows(step, trace.group, stays, arrays)
    return stays
