"""Convolutions in groups, depthwise ones aside: whole groups go, and inside of those that are left equally many channels.

Along its first axis the weight has the channels of one side, group after group; along its second one the place of the other side's
channels in their group, which all groups share.
"""

import numpy as np

from compressor.graph.node import Node
from compressor.structure.numbers import Numbers, added, bias_numbers
from compressor.structure.scope import Found, Scope, Unproven
from compressor.structure.units import Array, Cut, Grouped, Layout, Mask, Units
from compressor.structure.weights import bias_layout, bias_of, is_padded, offset_of


def grouped(scope: Scope, node: Node) -> Found:
    array, weight = scope.own(node, 1)
    groups, transposed, read = node.int("group", 1), node.op_type == "ConvTranspose", scope.layouts.get(node.inputs[0])
    first, places = array.shape[:2]
    num_read, num_made = (first, places * groups) if transposed else (places * groups, first)
    if first % groups or (read is not None and not read.has(array.ndim, 1, num_read)):
        raise Unproven
    layout = Layout(array.ndim, 1, scope.new(num_made))
    units = None if read is None else read.units
    by_first, by_place = (units, layout.units) if transposed else (layout.units, units)
    bias, along = bias_of(scope, node), bias_layout(node, layout)
    cuts = list(scope.cuts_of(bias, along))
    if by_first is not None:
        cuts.append(Cut(weight.tensor, weight.axes[0], by_first))
    shared = scope.new(places)
    if by_place is not None:
        cuts.append(Cut(weight.tensor, weight.axes[1], shared))
    padded = transposed or is_padded(node)
    offset = None if padded else offset_of(scope, node, bias, layout)
    step = Grouped(node, weight, groups, transposed, by_first, by_place, shared, bias, offset)
    return Found((step,), {node.outputs[0]: layout}, tuple(cuts))


def fold_grouped(step: Grouped, read: Numbers | None, arrays: dict[str, Array]) -> bool:
    """Whether a weight was zeroed that reads a constant, which the bias then has."""
    if read is None:
        return False
    weight = _inward_first(step, arrays)
    numbers = read.reshape(weight.shape[:2])
    folds = (weight != 0).any(tuple(range(2, weight.ndim))) & ~np.isnan(numbers)
    if step.offset is None:
        folds &= numbers == 0
    if not folds.any():
        return False
    held = np.where(folds, numbers, 0)
    if step.offset is not None and held.any():
        taps = weight.astype(np.float64).sum(tuple(range(3, weight.ndim)))
        if not added(step.offset.place.of(arrays), step.offset.factor * np.einsum("gr,grm->gm", held, taps).ravel()):
            return False
    weight[folds] = 0
    return True


def made_by_groups(step: Grouped, arrays: dict[str, Array]) -> Numbers:
    """What the channels hold for which all weights are 0."""
    weight = _inward_first(step, arrays)
    reads = (weight != 0).any((1, *range(3, weight.ndim))).ravel()
    return np.where(reads, np.nan, bias_numbers(step.bias, Layout(1, 0, np.arange(len(reads))), arrays))


def read_by_groups(step: Grouped, wanted: Mask, arrays: dict[str, Array]) -> tuple[Mask, Mask]:
    """Which channels the `wanted` ones read, and which places of the second axis hold anything for them."""
    weight = _inward_first(step, arrays)
    used = (weight != 0).any(tuple(range(3, weight.ndim))) & wanted.reshape(weight.shape[0], 1, weight.shape[2])
    return used.any(2).ravel(), used.any((0, 1) if step.transposed else (0, 2))


def zero_places(step: Grouped, live: Mask, arrays: dict[str, Array]) -> bool:
    """Zeroes what is for dead channels along the second axis, of one group but not of another. Returns: whether there was any."""
    if step.by_place is None:
        return False
    weight = _in_groups(step, arrays)
    part = np.moveaxis(weight, 2, 1)
    dead = ~live[step.by_place].reshape(part.shape[:2])
    if not part[dead].any():
        return False
    part[dead] = 0
    return True


def keep_in_step(step: Grouped, group: Units, stays: Mask) -> None:
    """Lets more groups of units stay, until the weight can be cut: equally many channels of every group, at the same places."""
    first = None if step.by_first is None else group[step.by_first].reshape(step.groups, -1)
    place = None if step.by_place is None else group[step.by_place].reshape(step.groups, -1)
    alive: Mask = np.ones(step.groups, np.bool_)
    if first is not None and place is not None:
        alive = np.asarray(stays[first].any(1) | stays[place].any(1))
    if place is not None:
        used = np.asarray(stays[place][alive].any(0))
        used[0] |= not used.any()
        stays[place[np.ix_(alive, used)]] = True
        stays[group[step.shared[used]]] = True
    if first is not None:
        wanted = max(1, *stays[first].sum(1)[alive])
        for channels in first[alive]:
            missing = np.flatnonzero(~stays[channels])
            stays[channels[missing[: wanted - (len(channels) - len(missing))]]] = True


def num_groups(step: Grouped, stays: Mask) -> int:
    """How many are left; `stays` is by unit."""
    if step.by_first is None or step.by_place is None:
        return step.groups
    return int(stays[step.by_first].reshape(step.groups, -1).any(1).sum())


def _in_groups(step: Grouped, arrays: dict[str, Array]) -> Array:
    """A view of the weight: [groups, channels of the first axis, places of the second one, ...]."""
    weight = step.weight.of(arrays)
    return weight.reshape(step.groups, -1, *weight.shape[1:])


def _inward_first(step: Grouped, arrays: dict[str, Array]) -> Array:
    """A view of the weight: [groups, channels read, channels made, ...]."""
    weight = _in_groups(step, arrays)
    return weight if step.transposed else np.moveaxis(weight, 2, 1)
