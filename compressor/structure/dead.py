"""Constants folded forward and zeros drawn backward, in the arrays, until nothing changes."""

import numpy as np
import numpy.typing as npt
import torch

from compressor.graph.ops import OPERATORS
from compressor.structure.units import Array, Depthwise, Layout, Linear, Move, Pointwise, Stored, Trace

# A value's number at each position of its axis, where it is the same in every row and place; else NaN.
Constants = npt.NDArray[np.float64]
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
        changed = _fold(trace, arrays)
        live = _live(trace, arrays)
        for cut in trace.cuts:
            part = np.moveaxis(arrays[cut.tensor], cut.axis, 0)
            dead = ~live[cut.units]
            if part[dead].any():
                part[dead] = 0
                changed = True
        if not changed:
            return _with_one_each(trace, live)


def _live(trace: Trace, arrays: dict[str, Array]) -> Mask:
    live = trace.pinned.copy()
    for step in trace.steps:
        if isinstance(step, Linear) and step.units is not None:
            live[trace.group[step.units[_rows(_inward_first(step, arrays))]]] = True
    return live[trace.group]


def _with_one_each(trace: Trace, live: Mask) -> Mask:
    """No size may become 0."""
    stays = live.copy()
    for units in (*(layout.units for layout in trace.layouts.values()), *trace.features.values()):
        if not stays[units].any():
            stays[trace.group == trace.group[units[0]]] = True
    return stays


def _fold(trace: Trace, arrays: dict[str, Array]) -> bool:
    """Whether a weight that reads a constant was zeroed."""
    constants: dict[str, Constants] = {}
    changed = False
    for step in trace.steps:
        match step:
            case Linear():
                changed |= _fold_into(step, constants.get(step.node.inputs[0]), arrays)
                made = _made(step, arrays)
            case Depthwise():
                made = _filtered(step, constants[step.node.inputs[0]], arrays)
            case Pointwise():
                made = _computed(step, constants, arrays)
            case Move():
                parts = [constants.get(name, np.full(size, np.nan)) for name, size in zip(step.node.inputs, step.sizes, strict=False)]
                made = np.concatenate(parts)[step.source]
                made = np.where(made == 0, made, np.nan) if step.blurs else made
        constants[step.node.outputs[0]] = made
    return changed


def _fold_into(step: Linear, read: Constants | None, arrays: dict[str, Array]) -> bool:
    if read is None or step.units is None:
        return False
    weight = _inward_first(step, arrays)
    folds = _rows(weight) & ~np.isnan(read)
    offset = None if step.padded else step.offset
    if offset is None:
        folds &= read == 0
    if not folds.any():
        return False
    if offset is not None and read[folds].any():
        place = offset.place.of(arrays)
        taps = weight[folds].astype(np.float64).sum(tuple(range(2, weight.ndim)))
        with np.errstate(over="ignore"):
            sums = (place.ravel() + offset.factor * step.alpha * (read[folds] @ taps)).astype(place.dtype)
        if not np.isfinite(sums.astype(np.float64)).all():
            return False
        place[...] = sums.reshape(place.shape)
    weight[folds] = 0
    return True


def _made(step: Linear, arrays: dict[str, Array]) -> Constants:
    """What a weight gives where all that it multiplies by is 0."""
    weight = np.swapaxes(_inward_first(step, arrays), 0, 1)
    return np.where(_rows(weight), np.nan, step.beta * _bias(step.bias, step.bias_layout, arrays))


def _filtered(step: Depthwise, read: Constants, arrays: dict[str, Array]) -> Constants:
    filters = step.weight.of(arrays).reshape(len(read), -1).astype(np.float64)
    bias = _bias(step.bias, Layout(1, 0, np.arange(len(read))), arrays)
    moved = np.where(read == 0, 0, np.nan) if step.padded else read * filters.sum(1)
    return np.where(filters.any(1), moved, 0) + bias


def _computed(step: Pointwise, constants: dict[str, Constants], arrays: dict[str, Array]) -> Constants:
    """By the operator itself, on the constants; a product is 0 where one factor is, whatever the other."""
    node, layout = step.node, step.layout
    shape = [1] * layout.rank
    shape[layout.axis] = -1
    unknown = np.zeros(len(layout.units), np.bool_)
    nothing = np.zeros(len(layout.units), np.bool_)
    args: list[torch.Tensor | None] = []
    for slot, name in enumerate(node.inputs):
        operand = step.operands[slot]
        if name in constants:
            read = constants[name]
            unknown |= np.isnan(read)
            nothing |= (node.op_type == "Mul") & (read == 0)
            args.append(torch.from_numpy(np.nan_to_num(read, nan=0.0).reshape(shape)))
        elif operand is not None:
            array = operand.of(arrays).astype(np.float64)
            if node.op_type == "Mul" or (node.op_type == "BatchNormalization" and slot == 1):
                along = Layout(1, 0, layout.units) if node.op_type == "BatchNormalization" else layout
                nothing |= _along(array, along) == 0
            args.append(torch.from_numpy(np.ascontiguousarray(array)))
        else:
            args.append(None)
    operator = OPERATORS[node.op_type]
    run = operator.build(node)
    result = run(False, *args) if operator.takes_mode else run(*args)
    made = _along(result.numpy(), layout)
    return np.where((unknown & ~nothing) | ~np.isfinite(made), np.nan, made)


def _bias(bias: Stored | None, layout: Layout, arrays: dict[str, Array]) -> Constants:
    return np.zeros(len(layout.units)) if bias is None else _along(bias.of(arrays).astype(np.float64), layout)


def _along(array: npt.NDArray[np.float64], layout: Layout) -> Constants:
    """The number at each position of the axis, NaN where they are several."""
    shape = [1] * layout.rank
    shape[layout.axis] = len(layout.units)
    spread = np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(shape)))
    lines = np.moveaxis(spread, layout.axis, 0).reshape(len(layout.units), -1)
    return np.where((lines == lines[:, :1]).all(1), lines[:, 0], np.nan)


def _inward_first(step: Linear, arrays: dict[str, Array]) -> Array:
    """A view of the weight: [units read, units made, ...]."""
    return np.moveaxis(step.weight.of(arrays), (step.inward, step.outward), (0, 1))


def _rows(weight: Array) -> Mask:
    """Where the first axis holds anything but zeros."""
    return np.asarray((weight != 0).any(tuple(range(1, weight.ndim))))
