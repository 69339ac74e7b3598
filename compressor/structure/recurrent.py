"""LSTM, GRU and RNN. A hidden unit is a row of each gate and a column of the recurrent matrix; of both directions it is one, since their
tensors have one shape."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS
from compressor.structure.numbers import Numbers, added, alike, along
from compressor.structure.scope import Found, Scope, Unproven
from compressor.structure.sizes import Size, Sizes
from compressor.structure.units import Array, Cut, Layout, Mask, Recurrent, Stored, Units

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_NUM_STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
_BIAS, _LENGTHS, FIRST_STATE, _PEEPHOLES = 3, 4, 5, 7  # slots


def recurrent(scope: Scope, node: Node) -> Found:
    gates, (w_array, w), (r_array, r) = _GATES[node.op_type], scope.own(node, 1), scope.own(node, 2)
    if w_array.ndim != 3 or w_array.shape[1] % gates:
        raise Unproven
    directions, stacked, num_read = w_array.shape
    size = stacked // gates
    if r_array.shape != (directions, stacked, size):
        raise Unproven
    bias = _of_shape(scope, node, _BIAS, (directions, 2 * stacked))
    peepholes = _of_shape(scope, node, _PEEPHOLES, (directions, 3 * size))
    read, units = scope.layouts.get(node.inputs[0]), scope.new(size)
    cuts = [Cut(r.tensor, r.axes[2], units)]
    for stored, parts in ((w, gates), (r, gates), (bias, 2 * gates), (peepholes, 3)):
        if stored is not None:
            cuts.append(Cut(stored.tensor, stored.axes[1], np.tile(units, parts)))
    if read is not None:
        if not read.has(3, 2, num_read):
            raise Unproven
        cuts.append(Cut(w.tensor, w.axes[2], read.units))
    begins, ties = [], []
    for slot in range(FIRST_STATE, FIRST_STATE + _NUM_STATES[node.op_type]):
        begin = _begin(scope, node, slot, size)
        begins.append(begin)
        if isinstance(begin, Stored):
            cuts.append(Cut(begin.tensor, begin.axes[2], units))
        elif begin is not None and begin in scope.layouts:
            ties.append(np.stack([units, scope.layouts[begin].units]))
        elif begin is not None:
            scope.pinned.append(units)
    step = Recurrent(
        node, gates, w, r, bias, peepholes, None if read is None else read.units, units, tuple(begins), node.has_input(_LENGTHS)
    )
    layouts = {name: Layout(3, 2, units) if slot else Layout(4, 3, units) for slot, name in enumerate(node.outputs) if name}
    return Found((step,), layouts, tuple(cuts), tuple(ties), _sizes(scope, node, directions, size))


def _of_shape(scope: Scope, node: Node, slot: int, shape: tuple[int, ...]) -> Stored | None:
    if not node.has_input(slot):
        return None
    array, stored = scope.own(node, slot)
    if array.shape != shape:
        raise Unproven
    return stored


def _begin(scope: Scope, node: Node, slot: int, size: int) -> Stored | str | None:
    """The first state: None where it is 0, a constant of this node, or the name of a value."""
    if not node.has_input(slot):
        return None
    name = node.inputs[slot]
    layout, stored = scope.layouts.get(name), scope.stored.get(name)
    if stored is not None and scope.is_own(stored) and stored.of(scope.arrays).shape[2:] == (size,):
        return stored
    if layout is not None and not layout.has(3, 2, size):
        raise Unproven
    return None if scope.is_zero(name) else name


def _sizes(scope: Scope, node: Node, directions: int, size: int) -> dict[str, Sizes]:
    given = scope.sizes_of(node.inputs[0])
    if given is None or len(given) != 3:
        return {}
    both, hidden = Size(directions), Size(size)
    if node.int("layout", 0):
        shapes: list[Sizes] = [(given[0], given[1], both, hidden), (given[0], both, hidden)]
    else:
        shapes = [(given[0], both, given[1], hidden), (both, given[1], hidden)]
    return {name: shapes[min(slot, 1)] for slot, name in enumerate(node.outputs) if name}


def fold_recurrent(step: Recurrent, known: Mapping[str, Numbers], read: Layout | None, arrays: dict[str, Array]) -> bool:
    """Whether a weight was zeroed that reads a constant, of the input or of a unit that never leaves 0."""
    changed = read is not None and _fold_input(step, along(known[step.node.inputs[0]], read), arrays)
    columns = np.moveaxis(_by_gate(step, step.r, arrays), 3, 1)  # [directions, units read, gates, units]
    idle = columns.any((2, 3)) & _at_zero(step, known, arrays)
    columns[idle] = 0
    return changed or bool(idle.any())


def _fold_input(step: Recurrent, numbers: Numbers, arrays: dict[str, Array]) -> bool:
    weight = step.w.of(arrays)
    folds = (weight != 0).any((0, 1)) & ~np.isnan(numbers)
    if step.bias is None:
        folds &= numbers == 0
    if not folds.any():
        return False
    if step.bias is not None and numbers[folds].any():
        of_input = step.bias.of(arrays)[:, : weight.shape[1]]
        if not added(of_input, (weight[..., folds].astype(np.float64) @ numbers[folds]).ravel()):
            return False
    weight[..., folds] = 0
    return True


def made_by_recurrent(step: Recurrent, known: Mapping[str, Numbers], arrays: dict[str, Array]) -> dict[str, Numbers]:
    """What its outputs hold: the hidden states of all steps, the last ones, and the last cell states."""
    zero = _at_zero(step, known, arrays)
    hidden, cell = (np.where(zero, 0.0, np.nan) for _ in range(2))
    if step.node.op_type == "RNN" and not step.has_lengths:
        # Its state is a function of what it reads, and of nothing before that.
        deaf = _is_deaf(step, arrays) & ~_reads(step, arrays, ~zero)
        hidden = np.where(deaf, _first_states(step, deaf, arrays)[0], hidden)
    by_direction = (1, 1, len(zero), -1) if step.node.int("layout", 0) else (1, len(zero), 1, -1)
    shapes = (by_direction, by_direction[1:], by_direction[1:])
    return {name: each.reshape(shape) for name, each, shape in zip(step.node.outputs, (hidden, hidden, cell), shapes, strict=False) if name}


def read_by_recurrent(step: Recurrent, wanted: Mask, arrays: dict[str, Array]) -> tuple[Mask, Mask]:
    """Which features of the input, and which of its own units, the `wanted` ones read."""
    features, units = (np.asarray(_by_gate(step, stored, arrays)[:, :, wanted].any((0, 1, 2))) for stored in (step.w, step.r))
    return features, units


def _at_zero(step: Recurrent, known: Mapping[str, Numbers], arrays: dict[str, Array]) -> Mask:
    """[directions, units]: which begin at 0, and stay there for ever, since a step from there leads there again.

    It is enough that they read nothing but each other.
    """
    zero = _is_deaf(step, arrays)
    for begin in step.begins:
        zero &= _begin_numbers(step, begin, known, arrays) == 0
    for states in _first_states(step, zero, arrays):
        zero &= states == 0
    while (wake := zero & _reads(step, arrays, ~zero)).any():
        zero &= ~wake
    return zero


def _is_deaf(step: Recurrent, arrays: dict[str, Array]) -> Mask:
    """[directions, units]: which read nothing of the input."""
    return np.asarray(~_by_gate(step, step.w, arrays).any((1, 3)))


def _reads(step: Recurrent, arrays: dict[str, Array], others: Mask) -> Mask:
    """[directions, units]: which read one of the `others`."""
    return np.asarray((_by_gate(step, step.r, arrays).any(1) & others[:, None]).any(2))


def _begin_numbers(step: Recurrent, begin: Stored | str | None, known: Mapping[str, Numbers], arrays: dict[str, Array]) -> Numbers:
    """[directions, units] or [1, units]: the numbers of the first state."""
    if begin is None:
        return np.zeros((1, len(step.units)))
    batch = 0 if step.node.int("layout", 0) else 1
    if isinstance(begin, Stored):
        return alike(begin.of(arrays).astype(np.float64), [batch]).squeeze(batch)
    return alike(known[begin], [batch]).squeeze(batch) if begin in known else np.full((1, len(step.units)), np.nan)


def _first_states(step: Recurrent, wanted: Mask, arrays: dict[str, Array]) -> tuple[Numbers, ...]:
    """[directions, units] for each kind of state: after a step from 0 in which nothing is read; NaN for units that are not `wanted`."""
    chosen = np.flatnonzero(wanted.any(0))
    directions, count = len(wanted), len(chosen)
    states = tuple(np.full(wanted.shape, np.nan) for _ in step.begins)
    if not count:
        return states
    node = replace(
        step.node, attributes={name: value for name, value in step.node.attributes.items() if name not in ("hidden_size", "layout")}
    )
    zeros = torch.zeros(directions, step.gates * count, count, dtype=torch.float64)
    inputs = [
        *(zeros.new_zeros(1, 1, 1), zeros[..., :1], zeros, _chosen(step.bias, 2 * step.gates, chosen, arrays)),
        *(None, None, None, _chosen(step.peepholes, 3, chosen, arrays)),
    ]
    _, *ends = OPERATORS[node.op_type].build(node)(*inputs)
    for held, end in zip(states, ends, strict=True):
        held[:, chosen] = end[:, 0].numpy()
    return states


def _chosen(stored: Stored | None, parts: int, chosen: Units, arrays: dict[str, Array]) -> torch.Tensor | None:
    """Of a bias or of peepholes: what belongs to some of the units."""
    if stored is None:
        return None
    array = stored.of(arrays).astype(np.float64)
    return torch.from_numpy(array.reshape(len(array), parts, -1)[..., chosen].reshape(len(array), -1))


def _by_gate(step: Recurrent, stored: Stored, arrays: dict[str, Array]) -> Array:
    """A view of a matrix: [directions, gates, units, read]."""
    array = stored.of(arrays)
    return array.reshape(array.shape[0], step.gates, len(step.units), array.shape[2])
