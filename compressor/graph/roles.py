"""What each float constant of a graph is: a weight that may become variational, another trainable tensor, or a fixed number."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, Flag, auto

import numpy as np

from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS, Flow, Operator
from compressor.graph.ops.layout import casts_to_integers


class Role(Enum):
    """WEIGHT: two or more dimensions, reaches a linear operator through layout operators.

    FIXED: what does not learn: bounds, indices, statistics, single numbers that are no bias, and what no gradient of the output reaches.
    """

    WEIGHT = "weight"
    TRAINABLE = "trainable"
    FIXED = "fixed"


class _Use(Flag):
    """Where a value ends up, layout operators looked through."""

    NONE = 0
    WEIGHT = auto()
    PARAMETER = auto()
    OTHER = auto()


def roles_of(nodes: Sequence[Node], outputs: Collection[str], floats: Mapping[str, np.ndarray]) -> dict[str, Role]:
    """The role of every float constant, by name; all operators must be in the table. Gradients come from `outputs`.

    The unit is the constant and not the node: a tensor that is read in two places, or through Identity, Transpose or Slice, is one.
    """
    uses: dict[str, _Use] = defaultdict(lambda: _Use.NONE)
    learning = set(outputs)
    for node in reversed(nodes):
        if learning.isdisjoint(node.outputs) or casts_to_integers(node):
            continue
        operator = OPERATORS[node.op_type]
        below = _Use.NONE
        for name in node.outputs:
            below |= uses[name]
        for slot, name in enumerate(node.inputs):
            if slot not in operator.settings and slot not in operator.frozen:
                learning.add(name)
                uses[name] |= _use_at(slot, operator, below)
    return {name: _role(uses[name], array) for name, array in floats.items()}


def _use_at(slot: int, operator: Operator, below: _Use) -> _Use:
    if operator.flow is Flow.LAYOUT:
        return below
    if slot in operator.weights:
        return _Use.WEIGHT
    return _Use.PARAMETER if slot in operator.parameters else _Use.OTHER


def _role(use: _Use, array: np.ndarray) -> Role:
    if _Use.WEIGHT in use and array.ndim >= 2:
        return Role.WEIGHT
    is_parameter = bool(use & (_Use.WEIGHT | _Use.PARAMETER)) and array.ndim > 0
    return Role.TRAINABLE if use and (is_parameter or array.size > 1) else Role.FIXED
