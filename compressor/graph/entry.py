"""The matrices that a graph applies to its inputs themselves, feature by feature."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from compressor.graph.node import Node
from compressor.graph.ops.layout import casts_to_integers

_RESHAPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast")
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")  # with a constant: how pixels are normalised
_TURNING = ("Transpose", "Identity", "Cast")


def matrices_at_input(nodes: Sequence[Node], weights: Collection[str], inputs: Collection[str]) -> dict[str, str]:
    """The value that each such matrix is applied to, by the matrix's name; its features lie along the last axis.

    On the way from the input a feature may be moved and rescaled, but not be mixed with another one. A matrix that is read anywhere else
    too is left out, as is everything that is no right-hand side of a Gemm or MatMul: a filter sees many pixels, constant or not.

    Args:
        nodes: in the order of the graph.
        weights: names of constants of two dimensions.
        inputs: where data come in.
    """
    origin = {name: name for name in weights}
    data, features = set(inputs), set(inputs)
    found: dict[str, set[str | None]] = defaultdict(set)
    for node in nodes:
        from_data = [name for name in node.inputs if name in data]
        if from_data:
            data.update(filter(None, node.outputs))
        first = node.inputs[0] if node.inputs else ""
        if (node.op_type in _RESHAPING and first in features and not casts_to_integers(node)) or (
            node.op_type in _ELEMENTWISE and len(from_data) == 1 and from_data[0] in features
        ):
            features.add(node.outputs[0])
        elif node.op_type in _TURNING and first in origin:
            origin[node.outputs[0]] = origin[first]
            continue
        is_product = node.op_type == "MatMul" or (node.op_type == "Gemm" and not node.int("transA", 0))
        for slot, name in enumerate(node.inputs):
            if name in origin:
                found[origin[name]].add(first if is_product and slot == 1 and first in features else None)
    singles = {name: next(iter(values)) for name, values in found.items() if len(values) == 1}
    return {name: value for name, value in singles.items() if value is not None}
