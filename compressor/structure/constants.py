"""Constants folded forward: what every value holds whatever comes in, and where it is taken up."""

from collections.abc import Sequence

import numpy as np
import torch

from compressor.graph.ops import OPERATORS
from compressor.structure.grouped import fold_grouped, made_by_groups
from compressor.structure.heads import attended, multiplied
from compressor.structure.lookups import looked_up
from compressor.structure.numbers import Numbers, added, alike, along, bias_numbers, nothing_known, spread, viewed
from compressor.structure.recurrent import fold_recurrent, made_by_recurrent
from compressor.structure.units import (
    Array,
    Attend,
    Depthwise,
    Grouped,
    Join,
    Keeps,
    Layout,
    Linear,
    Lookup,
    Move,
    Pick,
    Pointwise,
    Product,
    Recurrent,
    Sections,
    Trace,
    Turn,
    View,
)


def fold(trace: Trace, arrays: dict[str, Array]) -> bool:
    """Adds constants to the biases that can take them, and zeroes the weights that read them; those that read 0 are zeroed alone.

    Args:
        trace: of the units of a graph.
        arrays: all of its constants. They are changed such that its outputs stay the same.
    Returns: whether anything was changed.
    """
    known: dict[str, Numbers] = {}
    changed = False
    for step in trace.steps:
        output, read = step.node.outputs[0], step.node.inputs[0]
        match step:
            case Linear():
                line = along(known[read], trace.layouts[read]) if read in known else None
                changed |= _fold_into(step, line, arrays)
                known[output] = spread(_made(step, arrays), trace.layouts[output])
            case Depthwise():
                line = along(known[read], trace.layouts[read])
                known[output] = spread(_filtered(step, line, arrays), trace.layouts[output])
            case Grouped():
                line = along(known[read], trace.layouts[read]) if read in known else None
                changed |= fold_grouped(step, line, arrays)
                known[output] = spread(made_by_groups(step, arrays), trace.layouts[output])
            case Pointwise():
                known[output] = _computed(step, known, arrays)
            case Move():
                known[output] = spread(_moved(step, known, trace), trace.layouts[output])
            case Turn():
                known[output] = known[read].transpose(step.perm)
            case View():
                known[output] = viewed(known[read], step.atoms, step.rank, trace.layouts[output])
            case Pick():
                known[step.output] = _picked(step, known[read])
            case Sections():
                line = along(known[read], trace.layouts[read])
                known |= {name: spread(line[slice(*part)], trace.layouts[name]) for name, part in step.bounds.items()}
            case Join():
                known[output] = _joined([known[name] for name in step.node.inputs], trace.layouts[output])
            case Product():
                known[output] = multiplied(step, *(known[name] for name in step.node.inputs))
            case Attend():
                value = step.node.inputs[2]
                known[output] = attended(step, known[value], trace.layouts[value], trace.layouts[output])
            case Lookup():
                known[output] = spread(looked_up(step, arrays), trace.layouts[output])
            case Recurrent():
                changed |= fold_recurrent(step, known, trace.layouts.get(read), arrays)
                known |= made_by_recurrent(step, known, arrays)
    return changed


def _fold_into(step: Linear, read: Numbers | None, arrays: dict[str, Array]) -> bool:
    if read is None or step.units is None:
        return False
    weight = inward_first(step, arrays)
    folds = rows(weight) & ~np.isnan(read)
    offset = None if step.padded else step.offset
    if offset is None:
        folds &= read == 0
    if not folds.any():
        return False
    if offset is not None and read[folds].any():
        place = offset.place.of(arrays)
        taps = weight[folds].astype(np.float64).sum(tuple(range(2, weight.ndim)))
        if not added(place, offset.factor * step.alpha * (read[folds] @ taps)):
            return False
    weight[folds] = 0
    return True


def _made(step: Linear, arrays: dict[str, Array]) -> Numbers:
    """What a weight gives where all that it multiplies by is 0."""
    weight = np.swapaxes(inward_first(step, arrays), 0, 1)
    return np.where(rows(weight), np.nan, step.beta * bias_numbers(step.bias, step.bias_layout, arrays))


def _filtered(step: Depthwise, read: Numbers, arrays: dict[str, Array]) -> Numbers:
    filters = step.weight.of(arrays).reshape(len(read), -1).astype(np.float64)
    bias = bias_numbers(step.bias, Layout(1, 0, np.arange(len(read))), arrays)
    moved = np.where(read == 0, 0, np.nan) if step.padded else read * filters.sum(1)
    return np.where(filters.any(1), moved, 0) + bias


def _computed(step: Pointwise, known: dict[str, Numbers], arrays: dict[str, Array]) -> Numbers:
    """By the operator itself, on the constants; a product is 0 where one factor is, whatever the other."""
    node, layout = step.node, step.layout
    if node.op_type == "Where":
        return nothing_known(layout.rank)
    by_channel = node.op_type == "BatchNormalization"
    values = [known[name] for name in node.inputs if name in known]
    varied = {layout.axis, *(axis for value in values for axis, size in enumerate(value.shape) if size > 1)}
    unknown, nothing = np.zeros((1,) * layout.rank, np.bool_), np.zeros((1,) * layout.rank, np.bool_)
    args: list[torch.Tensor | None] = []
    for slot, name in enumerate(node.inputs):
        operand = step.operands[slot]
        if not name:
            args.append(None)
            continue
        if name in known:
            array = spread(along(known[name], layout), layout) if by_channel else known[name]
        elif operand is None:  # a value that no units are known of
            array = nothing_known(layout.rank)
        else:
            array = operand.of(arrays).astype(np.float64)
            if not by_channel and array.size > 1:
                array = array.reshape((1,) * (layout.rank - array.ndim) + array.shape)
                array = alike(array, [axis for axis, size in enumerate(array.shape) if size > 1 and axis not in varied])
        if not by_channel or name in known:
            unknown = unknown | np.isnan(array)
        if node.op_type == "Mul":
            nothing = nothing | (array == 0)
        elif by_channel and slot == 1:
            nothing = nothing | (spread(array, layout) == 0)
        args.append(torch.from_numpy(np.ascontiguousarray(np.nan_to_num(array, nan=0.0, posinf=np.inf, neginf=-np.inf))))
    operator = OPERATORS[node.op_type]
    run = operator.build(node)
    result = run(False, *args) if operator.takes_mode else run(*args)
    made = result.numpy()
    return np.where((unknown & ~nothing) | ~np.isfinite(made), np.nan, made)


def _moved(step: Move, known: dict[str, Numbers], trace: Trace) -> Numbers:
    parts = [
        along(known[name], trace.layouts[name]) if name in known else np.full(size, np.nan)
        for name, size in zip(step.node.inputs, step.sizes, strict=False)
    ]
    made = np.concatenate(parts)[step.source]
    match step.keeps:
        case Keeps.ALL:
            return made
        case Keeps.ZERO:
            return np.where(made == 0, made, np.nan)
        case Keeps.NOTHING:
            return np.full(made.shape, np.nan)


def _picked(step: Pick, read: Numbers) -> Numbers:
    for each in sorted(step.picked, key=lambda each: -each.axis):
        if each.indices is None or read.shape[each.axis] == 1:
            read = alike(read, [each.axis])
            read = read.reshape((*read.shape[: each.axis], *(1,) * each.num_dims, *read.shape[each.axis + 1 :]))
        else:
            read = read.take(each.indices, each.axis)
    return read


def _joined(parts: Sequence[Numbers], layout: Layout) -> Numbers:
    lines = np.stack([along(part, layout) for part in parts])
    return spread(np.where((lines == lines[0]).all(0), lines[0], np.nan), layout)


def inward_first(step: Linear, arrays: dict[str, Array]) -> Array:
    """A view of the weight: [units read, units made, ...]."""
    return np.moveaxis(step.weight.of(arrays), (step.inward, step.outward), (0, 1))


def rows(weight: Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Where the first axis holds anything but zeros."""
    return np.asarray((weight != 0).any(tuple(range(1, weight.ndim))))
