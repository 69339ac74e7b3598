"""What works along other axes than that of the units, and so does the same to each of them; and parts of their axis."""

import math
from dataclasses import replace

import numpy as np

from compressor.graph.node import Node
from compressor.graph.ops.activation import softmax_axis
from compressor.structure.counts import follows
from compressor.structure.pointwise import moved, same_kind
from compressor.structure.scope import Found, Handler, Scope, Unproven
from compressor.structure.sizes import Size, Sizes
from compressor.structure.units import Join, Keeps, Layout, Pick, Picked, Sections, Target

_NORMS = ("LayerNormalization", "RMSNormalization")
_SOFTMAXES = ("LogSoftmax", "Softmax")


def _normalised(scope: Scope, node: Node) -> Found:
    layout = scope.layout(node)
    if layout.axis >= node.int("axis", -1) % layout.rank or node.float("epsilon", 1e-5) <= 0:
        raise Unproven
    return _mixed(scope, node, layout)


def _softmax(scope: Scope, node: Node) -> Found:
    layout = scope.layout(node, may_repeat=True)
    given, coerced = softmax_axis(node)
    axis = given % layout.rank
    if axis == layout.axis or (coerced and axis < layout.axis):
        raise Unproven
    if node.op_type == "Softmax" and axis == layout.rank - 1:
        scope.distributions.add(node.outputs[0])
    return _mixed(scope, node, layout)


def _mixed(scope: Scope, node: Node, layout: Layout) -> Found:
    sizes = scope.sizes_of(node.inputs[0])
    return moved(node, layout, Keeps.NOTHING, {} if sizes is None else {node.outputs[0]: sizes})


def _is_nan(scope: Scope, node: Node) -> Found:
    return _mixed(scope, node, scope.layout(node, may_repeat=True))


def gather(scope: Scope, node: Node) -> Found:
    layout, sizes = scope.layout(node), scope.sizes_of(node.inputs[0])
    axis, places = node.int("axis", 0) % layout.rank, scope.sizes_of(node.inputs[1])
    if axis == layout.axis or places is None:
        raise Unproven
    made = {} if sizes is None else {node.outputs[0]: (*sizes[:axis], *places, *sizes[axis + 1 :])}
    indices = scope.arrays.get(node.inputs[1])
    return _picked(node, node.outputs[0], layout, (Picked(axis, indices, len(places)),), made)


def _slice(scope: Scope, node: Node) -> Found:
    layout, sizes = scope.layout(node), scope.sizes_of(node.inputs[0])
    starts, ends, axes, steps = (scope.numbers(node, slot) for slot in range(1, 5))
    if starts is None or ends is None or sizes is None or (axes is None and node.has_input(3)) or (steps is None and node.has_input(4)):
        raise Unproven
    chosen = [axis % layout.rank for axis in (range(len(starts)) if axes is None else axes)]
    made, picked = list(sizes), []
    for axis, start, end, step in zip(chosen, starts, ends, steps or [1] * len(starts), strict=True):
        number = sizes[axis].number
        places = None if number is None else np.arange(number)[slice(start, end, step)]
        if axis == layout.axis:
            if places is not None and len(places) == number and step == 1:
                continue
            if len(chosen) > 1 or step != 1 or places is None or not len(places):
                raise Unproven
            return _sections(node, layout, {node.outputs[0]: (int(places[0]), int(places[-1]) + 1)}, sizes)
        picked.append(Picked(axis, places, 1))
        made[axis] = Size(1, (f"?{node.outputs[0]}.{axis}",)) if places is None else Size(len(places))
    return _picked(node, node.outputs[0], layout, tuple(picked), {node.outputs[0]: tuple(made)})


def _split(scope: Scope, node: Node) -> Found:
    layout, sizes = scope.layout(node), scope.sizes_of(node.inputs[0])
    axis = node.int("axis", 0) % layout.rank
    whole = None if sizes is None else sizes[axis].number
    if sizes is None or whole is None or not all(node.outputs) or (node.has_input(1) and scope.numbers(node, 1) is None):
        raise Unproven
    parts = scope.numbers(node, 1) or node.ints("split") or [math.ceil(whole / len(node.outputs))] * len(node.outputs)
    stops = [min(stop, whole) for stop in np.cumsum(parts).tolist()]
    bounds = dict(zip(node.outputs, zip([0, *stops], stops, strict=False), strict=True))
    if any(start >= stop for start, stop in bounds.values()):
        raise Unproven
    if axis == layout.axis:
        return _sections(node, layout, bounds, sizes)
    found = [
        _picked(node, name, layout, (Picked(axis, np.arange(*part), 1),), {name: _with(sizes, axis, part)}) for name, part in bounds.items()
    ]
    return Found(
        tuple(step for each in found for step in each.steps),
        dict.fromkeys(bounds, layout),
        sizes={name: made for each in found for name, made in each.sizes.items()},
    )


def _with(sizes: Sizes, axis: int, part: tuple[int, int]) -> Sizes:
    return (*sizes[:axis], Size(part[1] - part[0]), *sizes[axis + 1 :])


def _picked(node: Node, output: str, layout: Layout, picked: tuple[Picked, ...], sizes: dict[str, Sizes]) -> Found:
    added = sum(each.num_dims - 1 for each in picked)
    moves = sum(each.num_dims - 1 for each in picked if each.axis < layout.axis)
    return Found(
        (Pick(node, output, picked),), {output: Layout(layout.rank + added, layout.axis + moves, layout.units, layout.repeats)}, sizes=sizes
    )


def _sections(node: Node, layout: Layout, bounds: dict[str, tuple[int, int]], sizes: Sizes) -> Found:
    layouts = {name: Layout(layout.rank, layout.axis, layout.units[slice(*part)]) for name, part in bounds.items()}
    made = {name: _with(sizes, layout.axis, part) for name, part in bounds.items()}
    return Found((Sections(node, bounds),), layouts, sizes=made)


def join(scope: Scope, node: Node) -> Found:
    """Concat along another axis."""
    layouts = [scope.layouts.get(name) for name in node.inputs]
    values = [layout for layout in layouts if layout is not None]
    if len(values) < len(layouts) or any(layout.repeats or not same_kind(layout, values[0]) for layout in values):
        raise Unproven
    ties = tuple(np.stack([values[0].units, other.units]) for other in values[1:])
    return Found((Join(node),), {node.outputs[0]: values[0]}, ties=ties)


def _pad(scope: Scope, node: Node) -> Found:
    layout, pads = scope.layout(node), scope.numbers(node, 1)
    axes = scope.numbers(node, 3) if node.has_input(3) else list(range(layout.rank))
    if pads is None or axes is None:
        raise Unproven
    along = [axis % layout.rank for axis in axes]
    if any(pads[index] for index, axis in enumerate([*along, *along]) if axis == layout.axis):
        raise Unproven
    if not any(pads) or node.string("mode", "constant") != "constant":
        return moved(node, layout)
    value = scope.stored.get(node.inputs[2]) if node.has_input(2) else None
    is_zero = not node.has_input(2) or (value is not None and not value.of(scope.arrays).any())
    return moved(node, layout, Keeps.ZERO if is_zero else Keeps.NOTHING)


def _resize(scope: Scope, node: Node) -> Found:
    layout = scope.layout(node)
    axes = [axis % layout.rank for axis in node.ints("axes") or range(layout.rank)]
    # Both modes make something of all axes together, or of what lies outside.
    mode, policy = node.string("coordinate_transformation_mode", "half_pixel"), node.string("keep_aspect_ratio_policy", "stretch")
    if mode == "tf_crop_and_resize" or policy != "stretch":
        raise Unproven
    if layout.axis not in axes:
        return moved(node, layout)
    place, scales = axes.index(layout.axis), scope.stored.get(node.inputs[2]) if node.has_input(2) else None
    if scales is not None and (array := scales.of(scope.arrays)).size:
        if array[place] != 1:
            raise Unproven
        return moved(node, layout)
    counts = scope.counts_of(node.inputs[3]) if node.has_input(3) else None
    if counts is None or counts[place].size != Size(len(layout.units)):
        raise Unproven
    numbers = scope.numbers(node, 3)
    if numbers is not None:
        return moved(node, layout, target=Target(3, tuple(numbers), place))
    if not follows(counts, place, layout.units):
        raise Unproven
    return replace(moved(node, layout), counted=(node.inputs[3],))


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_NORMS, _normalised),
    **dict.fromkeys(_SOFTMAXES, _softmax),
    "IsNaN": _is_nan,
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "Resize": _resize,
}
