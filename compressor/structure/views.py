"""The same numbers under another shape, or in another order: Reshape and its like, Transpose, Concat."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from compressor.graph.node import Node
from compressor.structure.across import join
from compressor.structure.counts import follows
from compressor.structure.lookahead import selected_axis
from compressor.structure.scope import Found, Handler, Scope, Unproven, permutation
from compressor.structure.sizes import Atom, Size, Sizes, product, regroup, solve
from compressor.structure.units import Layout, Move, Target, Turn, Units, View

_MAX_POSITIONS = 2**24  # of an axis: 128 MiB of numbers


def _transpose(scope: Scope, node: Node) -> Found:
    layout, sizes = scope.layout(node, may_repeat=True), scope.sizes_of(node.inputs[0])
    perm = permutation(node, layout.rank)
    turned = {} if sizes is None else {node.outputs[0]: tuple(sizes[axis] for axis in perm)}
    return Found((Turn(node, tuple(perm)),), {node.outputs[0]: replace(layout, axis=perm.index(layout.axis))}, sizes=turned)


def _view(scope: Scope, node: Node) -> Found:
    layout, given = scope.layout(node, may_repeat=True), scope.sizes_of(node.inputs[0])
    if given is None:
        raise Unproven
    wanted = _wanted(scope, node, given)
    solved = solve(given, wanted)
    atoms = regroup(given, solved)
    if atoms is None:
        raise Unproven
    made = tuple(
        size or old or Size(1, (f"?{node.outputs[0]}.{axis}",)) for axis, (size, old) in enumerate(zip(solved, wanted, strict=True))
    )
    moved, ties = _regrouped(scope, node, layout, atoms, made)
    target = _target(scope, node, moved, layout, given, solved) if node.op_type == "Reshape" else None
    step = View(node, tuple(atoms), len(made), target)
    return Found((step,), {node.outputs[0]: moved}, (), ties, {node.outputs[0]: made}, node.inputs[1:] if node.op_type == "Reshape" else ())


def _wanted(scope: Scope, node: Node, given: Sizes) -> Sequence[Size | None]:
    """The sizes that a view gives, as far as they are known."""
    axes = node.ints("axes") or scope.numbers(node, 1)
    match node.op_type:
        case "Flatten":
            axis = node.int("axis", 1)
            return product(given[:axis]), product(given[axis:])
        case "Squeeze" if axes is not None:
            dropped = {axis % len(given) for axis in axes}
            return [size for axis, size in enumerate(given) if axis not in dropped]
        case "Unsqueeze" if axes is not None:
            rank = len(given) + len(axes)
            rest, inserted = iter(given), {axis % rank for axis in axes}
            return [Size(1) if axis in inserted else next(rest) for axis in range(rank)]
    sizes = scope.sizes_of(node.outputs[0])
    counts = scope.counts_of(node.inputs[1]) if node.op_type == "Reshape" else None
    if counts is not None:
        wanted = [_wanted_size(node, count.size, given, axis) for axis, count in enumerate(counts.ravel())]
        return wanted if sizes is None else [old if size is None else size for size, old in zip(wanted, sizes, strict=True)]
    if sizes is None:
        raise Unproven
    return sizes


def _wanted_size(node: Node, size: Size | None, given: Sizes, axis: int) -> Size | None:
    if size is None or size == Size(-1):
        return None
    copies = size == Size(0) and not node.int("allowzero", 0)
    return given[axis] if copies and axis < len(given) else size


def _regrouped(scope: Scope, node: Node, layout: Layout, atoms: Sequence[Atom], made: Sizes) -> tuple[Layout, tuple[Units, ...]]:
    """Where the units lie afterwards. If their axis is split, those of one line of what it becomes are one unit from here on."""
    own = _of_units(layout, atoms)
    grid = layout.units.reshape([atom.size.factor for atom in own if atom.size is not None])
    split = _split_axis(scope, node, len(made), grid, own)
    lines = np.moveaxis(grid, split, 0).reshape(grid.shape[split], -1)
    same = bool((lines == lines[:, :1]).all())
    ties = () if same else (np.stack([np.repeat(lines[:, 0], lines.shape[1]), lines.ravel()]),)
    axis = own[split].made
    there = [atom for atom in atoms if atom.made == axis]
    place = next(index for index, atom in enumerate(there) if atom is own[split])
    inside = product([atom.size for atom in there[place + 1 :] if atom.size is not None]).number
    before = [atom.size for atom in there[:place]]
    outside = None if None in before else product([size for size in before if size is not None]).number
    if axis < 0 or inside is None or lines.shape[0] * inside * (outside or 1) > _MAX_POSITIONS:
        raise Unproven
    units = np.tile(np.repeat(lines[:, 0], inside), outside or 1)
    return Layout(len(made), axis, units, repeats=outside is None), ties


def _of_units(layout: Layout, atoms: Sequence[Atom]) -> list[Atom]:
    """The last atoms of the axis of the units, which are as many as there are units."""
    own: list[Atom] = []
    for atom in reversed([atom for atom in atoms if atom.given == layout.axis]):
        if math.prod(other.size.factor for other in own if other.size is not None) == len(layout.units) and own:
            if layout.repeats or atom.size == Size(1):
                break
            raise Unproven
        if atom.size is None or atom.size.symbols:
            raise Unproven
        own.insert(0, atom)
    if not own or math.prod(atom.size.factor for atom in own if atom.size is not None) != len(layout.units):
        raise Unproven
    return own


def _split_axis(scope: Scope, node: Node, rank: int, grid: Units, own: Sequence[Atom]) -> int:
    """The one of `own` along which units may go: where the others hold the same units anyway, else the first from which none is selected,
    as query, key and value are."""
    parts = [index for index, size in enumerate(grid.shape) if size > 1] or [0]
    for part in parts:
        lines = np.moveaxis(grid, part, 0).reshape(grid.shape[part], -1)
        if (lines == lines[:, :1]).all():
            return part
    selected = selected_axis(scope, node.outputs[0], rank)
    return next((part for part in parts if own[part].made != selected), parts[0])


def _target(scope: Scope, node: Node, moved: Layout, layout: Layout, given: Sizes, made: Sequence[Size | None]) -> Target | None:
    """The sizes to write where units go: those that the file has, or, where they are computed, such as say the same; None where those that
    are computed change by themselves."""
    counts, sizes = scope.counts.get(node.inputs[1]), scope.numbers(node, 1)
    if sizes is not None and moved.repeats:
        return None  # such an axis has no number of its own
    if sizes is not None:
        return Target(1, tuple(sizes), moved.axis)
    if counts is not None and follows(counts, moved.axis, moved.units):
        return None
    counted = () if counts is None else tuple(units for count in counts.ravel() for units in count.units)
    sizes = _as_numbers(moved, {axis: size for axis, size in enumerate(given) if axis != layout.axis}, made)
    return Target(1, tuple(sizes), moved.axis, moved.repeats, counted)


def _as_numbers(moved: Layout, copied: Mapping[int, Size], made: Sequence[Size | None]) -> list[int]:
    sizes: list[int] = []
    for axis, size in enumerate(made):
        number = None if size is None else size.number
        if axis == moved.axis:
            sizes.append(-1 if moved.repeats else len(moved.units))
        elif number is not None:
            sizes.append(number)
        elif size is not None and copied.get(axis) == size:
            sizes.append(0)
        else:
            sizes.append(-1)
    if sizes.count(-1) > 1:
        raise Unproven
    return sizes


def _concat(scope: Scope, node: Node) -> Found:
    values = [scope.layouts[name] for name in node.inputs if name in scope.layouts]
    if not values or any(layout.repeats for layout in values):
        raise Unproven
    rank, axis = values[0].rank, values[0].axis
    if node.int("axis", 0) % rank != axis:
        return join(scope, node)
    if any((other.rank, other.axis) != (rank, axis) for other in values):
        raise Unproven
    parts = [scope.layouts[name].units if name in scope.layouts else _untold(scope, name, axis) for name in node.inputs]
    units = np.concatenate(parts)
    step = Move(node, tuple(map(len, parts)), np.arange(len(units)))
    return Found((step,), {node.outputs[0]: Layout(rank, axis, units)})


def _untold(scope: Scope, name: str, axis: int) -> Units:
    """New units that stay, for a value that none are known of."""
    sizes = scope.sizes_of(name)
    number = None if sizes is None else sizes[axis].number
    if number is None:
        raise Unproven
    units = scope.new(number)
    scope.pinned.append(units)
    return units


HANDLERS: dict[str, Handler] = {
    "Transpose": _transpose,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _view),
    "Concat": _concat,
}
