"""What becomes of the axes of a view further on."""

from compressor.graph.node import Node
from compressor.structure.scope import Scope, permutation

_MAX_STEPS = 8


def selected_axis(scope: Scope, name: str, rank: int) -> int | None:
    """The axis of a value of which all that read it take single elements or parts, as they do of queries, keys and values that one
    product has made; None where there is no such axis."""
    axes: list[int | None] = list(range(rank))
    for _ in range(_MAX_STEPS):
        readers = scope.readers(name)
        selected = {_selected(scope, reader, len(axes)) for reader in readers}
        if len(selected) == 1 and (axis := selected.pop()) is not None:
            return axes[axis]
        turned = _turned(scope, readers[0], axes) if len(readers) == 1 else None
        if turned is None:
            return None
        name, axes = readers[0].outputs[0], turned
    return None


def _selected(scope: Scope, node: Node, rank: int) -> int | None:
    match node.op_type:
        case "Gather" | "Split":
            return node.int("axis", 0) % rank
        case "Slice" if (axes := scope.numbers(node, 3)) is not None and len(axes) == 1:
            return axes[0] % rank
    return None


def _turned(scope: Scope, node: Node, axes: list[int | None]) -> list[int | None] | None:
    """`axes` in the output of a node that only moves them."""
    given = node.ints("axes") or scope.numbers(node, 1)
    match node.op_type:
        case "Identity" | "Cast":
            return axes
        case "Transpose":
            return [axes[axis] for axis in permutation(node, len(axes))]
        case "Squeeze" if given is not None:
            dropped = {axis % len(axes) for axis in given}
            return [axis for index, axis in enumerate(axes) if index not in dropped]
        case "Unsqueeze" if given is not None:
            rank = len(axes) + len(given)
            rest, inserted = iter(axes), {axis % rank for axis in given}
            return [None if index in inserted else next(rest) for index in range(rank)]
    return None
