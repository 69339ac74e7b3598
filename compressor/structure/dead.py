"""Constants folded forward and zeros drawn backward, in the arrays, until nothing changes."""

import numpy as np
import numpy.typing as npt

from compressor.structure.constants import fold, inward_first, rows
from compressor.structure.units import Array, Linear, Trace

Mask = npt.NDArray[np.bool_]


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
        for cut in trace.cuts:
            part = np.moveaxis(arrays[cut.tensor], cut.axis, 0)
            dead = ~live[trace.group[cut.units]]
            if part[dead].any():
                part[dead] = 0
                changed = True
        if not changed:
            return _closed(trace, live)[trace.group]


def _live(trace: Trace, arrays: dict[str, Array]) -> Mask:
    """Which groups of units somebody reads."""
    live = trace.pinned.copy()
    for step in trace.steps:
        if isinstance(step, Linear) and step.units is not None:
            live[trace.group[step.units[rows(inward_first(step, arrays))]]] = True
    return live


def _closed(trace: Trace, live: Mask) -> Mask:
    """The groups of units that stay: the live ones, and some more, since no size may become 0."""
    stays = live.copy()
    for units in (*(layout.units for layout in trace.layouts.values()), *trace.features.values()):
        groups = trace.group[units]
        if not stays[groups].any():
            stays[groups[0]] = True
    return stays
