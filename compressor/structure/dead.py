"""Constants folded forward and zeros drawn backward, in the arrays, until nothing changes."""

import numpy as np

from compressor.structure.constants import fold, inward_first, rows
from compressor.structure.grouped import keep_in_step, read_by_groups, zero_places
from compressor.structure.recurrent import read_by_recurrent
from compressor.structure.units import Array, Grouped, Linear, Mask, Recurrent, Trace, Units


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
            return _closed(trace, live)[trace.group]


def _live(trace: Trace, arrays: dict[str, Array]) -> Mask:
    """Which groups of units a live one reads; what is pinned is live."""
    live = trace.pinned.copy()
    done: dict[int, int] = {}  # how many of the units that a step makes were live when it was last looked at
    while True:
        before = int(live.sum())
        for index, step in reversed(list(enumerate(trace.steps))):
            if not isinstance(step, Linear | Grouped | Recurrent):
                continue
            made = step.units if isinstance(step, Recurrent) else trace.layouts[step.node.outputs[0]].units
            wanted = live[trace.group[made]]
            count = int(wanted.sum())
            if count != done.get(index):
                done[index] = count
                for units, read in _read(step, wanted, arrays):
                    live[trace.group[units[read]]] = True
        if int(live.sum()) == before:
            return live


def _read(step: Linear | Grouped | Recurrent, wanted: Mask, arrays: dict[str, Array]) -> list[tuple[Units, Mask]]:
    """Units, and which of them are read by those of the step's own that are `wanted`."""
    match step:
        case Linear(units=units):
            return [] if units is None else [(units, rows(inward_first(step, arrays)[:, wanted]))]
        case Grouped(read=units):
            read, places = read_by_groups(step, wanted, arrays)
            return [(step.shared, places)] if units is None else [(step.shared, places), (units, read)]
        case Recurrent(read=units):
            features, read = read_by_recurrent(step, wanted, arrays)
            return [(step.units, read)] if units is None else [(step.units, read), (units, features)]


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


def _closed(trace: Trace, live: Mask) -> Mask:
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
    return stays
