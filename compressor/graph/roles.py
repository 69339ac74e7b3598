"""What each float constant of a graph is: a weight that may become variational, another trainable tensor, or a fixed number."""

from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np

from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS, Flow


class Role(Enum):
    """WEIGHT: two or more dimensions, reaches a linear operator through layout operators.

    FIXED: what does not learn: bounds, indices, statistics, single numbers that are no bias.
    """

    WEIGHT = "weight"
    TRAINABLE = "trainable"
    FIXED = "fixed"


def roles_of(nodes: Sequence[Node], floats: Mapping[str, np.ndarray]) -> dict[str, Role]:
    """The role of every float constant that `nodes` read, by name; all operators must be in the table.

    The unit is the constant and not the node: a tensor that is read in two places, or through Identity, Transpose or Slice, is one.
    """
    origins: dict[str, frozenset[str]] = {name: frozenset([name]) for name in floats}
    roles = dict.fromkeys(floats, Role.FIXED)
    for node in nodes:
        operator = OPERATORS[node.op_type]
        through: frozenset[str] = frozenset()
        for slot, name in enumerate(node.inputs):
            found = origins.get(name, frozenset())
            if slot in operator.settings or slot in operator.frozen:
                continue
            if operator.flow is Flow.LAYOUT:
                through |= found
                continue
            for origin in found:
                role = _role_at(slot, floats[origin], operator.weights, operator.parameters)
                if role is Role.WEIGHT or roles[origin] is Role.FIXED:
                    roles[origin] = role
        if through:
            origins.update(dict.fromkeys(node.outputs, through))
    return roles


def _role_at(slot: int, array: np.ndarray, weights: tuple[int, ...], parameters: tuple[int, ...]) -> Role:
    if slot in weights and array.ndim >= 2:
        return Role.WEIGHT
    if array.size > 1 or (array.ndim > 0 and slot in weights + parameters):
        return Role.TRAINABLE
    return Role.FIXED
