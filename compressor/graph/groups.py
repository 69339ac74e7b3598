"""What belongs together in a weight: the neurons of a matrix, the filters of a convolution, the rows of an embedding table."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from compressor.graph.node import Node
from compressor.graph.ops.layout import casts_to_integers


def group_axes_of(nodes: Sequence[Node], num_dims: Mapping[str, int]) -> dict[str, int]:
    """The axis of each weight along which its groups lie, by name: every index along it is one output neuron, filter or table row.

    It is told by the operator that reads the weight, Identity, Cast and Transpose looked through. A weight that has no group there
    (the stacked gates of a recurrent layer), or different ones in two places, or passes through anything else, is left out.

    Args:
        nodes: in the order of the graph.
        num_dims: of the weights, by name.
    """
    # For a weight and what is made of it by turning: its name, and which of its axes each axis is.
    views = {name: (name, tuple(range(count))) for name, count in num_dims.items()}
    found: dict[str, set[int | None]] = defaultdict(set)
    for node in nodes:
        for slot, name in enumerate(node.inputs):
            if name not in views:
                continue
            weight, axes = views[name]
            if node.op_type == "Transpose":
                perm = node.ints("perm") or list(reversed(range(len(axes))))
                if sorted(perm) == list(range(len(axes))):  # any other one does not run
                    views[node.outputs[0]] = weight, tuple(axes[axis] for axis in perm)
            elif node.op_type in ("Identity", "Cast") and not casts_to_integers(node):
                views[node.outputs[0]] = weight, axes
            else:
                axis = _axis_at(node, slot, len(axes))
                found[weight].add(None if axis is None else axes[axis])
    chosen = {name: axes.pop() for name, axes in found.items() if len(axes) == 1}
    return {name: axis for name, axis in chosen.items() if axis is not None}


def _axis_at(node: Node, slot: int, num_dims: int) -> int | None:
    """The axis of outputs, or of rows that are looked up, of the weight in a slot."""
    match node.op_type, slot:
        case "Conv", 1:
            return 0
        case "ConvTranspose", 1:
            return 1 if node.int("group", 1) == 1 else None
        case "Gemm", 0:
            return 1 if node.int("transA", 0) else 0
        case "Gemm", 1:
            return 0 if node.int("transB", 0) else 1
        case "MatMul", 0 | 1 if num_dims == 2:
            return slot
        case "Gather", 0:
            return node.int("axis", 0) % num_dims
    return None
