"""What belongs together in a weight: the neurons of a matrix, the filters of a convolution, the rows of an embedding table, the heads of an
attention layer."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.graph.node import Node
from compressor.graph.ops.layout import casts_to_integers


@dataclass(frozen=True)
class GroupAxis:
    """Every `size` indices in a row along `axis` of a weight are one group."""

    axis: int
    size: int = 1


def group_axes_of(
    nodes: Sequence[Node], shapes: Mapping[str, Sequence[int]], numbers: Mapping[str, npt.NDArray[np.int64]]
) -> dict[str, GroupAxis]:
    """Along which axis the groups of each weight lie, by name: output neurons, filters, table rows, or whole heads.

    It is told by the operator that reads the weight, Identity, Cast and Transpose looked through. A weight that has no group there
    (the stacked gates of a recurrent layer), or different ones in two places, or passes through anything else, is left out. Neurons are
    heads where the product, a bias added, is reshaped to [..., heads, size of a head] and then transposed, as attention does.

    Args:
        nodes: in the order of the graph.
        shapes: of the weights, by name.
        numbers: integer constants by name, sizes of a Reshape among them.
    """
    # For a weight and what is made of it by turning: its name, and which of its axes each axis is.
    views = {name: (name, tuple(range(len(shape)))) for name, shape in shapes.items()}
    found: dict[str, set[GroupAxis | None]] = defaultdict(set)
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        for name in node.inputs:
            readers[name].append(node)
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
                found[weight].add(None if axis is None else _group(node, shapes[weight], axes[axis], readers, numbers))
    chosen = {name: groups.pop() for name, groups in found.items() if len(groups) == 1}
    return {name: group for name, group in chosen.items() if group is not None}


def _group(
    node: Node, shape: Sequence[int], axis: int, readers: Mapping[str, Sequence[Node]], numbers: Mapping[str, npt.NDArray[np.int64]]
) -> GroupAxis:
    """A head where the output of `node` is split into heads, else a single neuron."""
    if node.op_type not in ("MatMul", "Gemm"):
        return GroupAxis(axis)
    following = readers.get(node.outputs[0], ())
    if len(following) == 1 and following[0].op_type == "Add":
        following = readers.get(following[0].outputs[0], ())
    if len(following) != 1 or following[0].op_type != "Reshape":
        return GroupAxis(axis)
    sizes = numbers.get(following[0].inputs[1])
    transposed = [reader.op_type for reader in readers.get(following[0].outputs[0], ())]
    if sizes is None or len(sizes) < 3 or transposed != ["Transpose"]:
        return GroupAxis(axis)
    heads, size = int(sizes[-2]), int(sizes[-1])
    return GroupAxis(axis, size) if heads > 1 and heads * size == shape[axis] else GroupAxis(axis)


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
