"""What each float constant of a graph is: a weight that may become variational, another trainable tensor, or a fixed number."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, Flag, auto

import numpy as np

from compressor.graph.content import not_finite
from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS, Flow, Operator
from compressor.graph.ops.layout import casts_to_integers

# What an additive mask holds where it shuts something out; no tensor that learns comes near it.
_MASKING = 1e4


class Role(Enum):
    """WEIGHT: two or more dimensions, reaches a weight slot through layout operators, or through others that only see constants.

    FIXED: what does not learn: bounds, indices, statistics, masks, single numbers that are no bias, and what no gradient of the output
    reaches.
    """

    WEIGHT = "weight"
    TRAINABLE = "trainable"
    FIXED = "fixed"


class _Use(Flag):
    """Where a value ends up, layout operators looked through."""

    NONE = 0
    WEIGHT = auto()
    MAKES_WEIGHT = auto()  # it and other constants give a weight, by computation
    PARAMETER = auto()
    OTHER = auto()


def roles_of(nodes: Sequence[Node], outputs: Collection[str], floats: Mapping[str, np.ndarray], inputs: Collection[str]) -> dict[str, Role]:
    """The role of every float constant, by name; all operators must be in the table.

    The unit is the constant and not the node: a tensor that is read in two places, or through Identity, Transpose or Slice, is one.

    Args:
        outputs: where gradients come from.
        inputs: where data come in; what does not depend on them is constant.
    """
    uses = _uses_of(nodes, outputs, inputs)
    return {name: _role(uses[name], array) for name, array in floats.items()}


def uncovered_of(
    nodes: Sequence[Node], outputs: Collection[str], floats: Mapping[str, np.ndarray], inputs: Collection[str]
) -> dict[str, str]:
    """Why a float constant of two or more dimensions is no weight, by name, in words; the arguments are those of roles_of."""
    uses = _uses_of(nodes, outputs, inputs)
    readers: dict[str, list[tuple[int, Node]]] = defaultdict(list)
    for node in nodes:
        for slot, name in enumerate(node.inputs):
            readers[name].append((slot, node))
    others = {name: array for name, array in floats.items() if array.ndim >= 2 and _role(uses[name], array) is not Role.WEIGHT}
    return {name: _reason(uses[name], array, readers[name]) for name, array in others.items()}


def check_finite_roles(roles: Mapping[str, Role], floats: Mapping[str, np.ndarray]) -> None:
    """No infinity in anything that learns.

    The structural walk lets minus infinity pass, since masks are made of it; these are FIXED, and only the roles tell them from a bias.

    Raises: InvalidModel.
    """
    for name, array in floats.items():
        if roles[name] is not Role.FIXED and not bool(np.isfinite(array).all()):
            raise not_finite(name)


def numbers_of(nodes: Sequence[Node]) -> set[str]:
    """The values that only end up as plain numbers (shapes, scales, bounds), and so belong on the CPU."""
    numbers: set[str] = set()
    others: set[str] = set()
    for node in reversed(nodes):
        settings = OPERATORS[node.op_type].settings
        makes_numbers = all(name in numbers and name not in others for name in node.outputs if name)
        for slot, name in enumerate(node.inputs):
            (numbers if makes_numbers or slot in settings else others).add(name)
    return numbers - others


def treatments_of(
    nodes: Sequence[Node], outputs: Collection[str], weights: Collection[str], inputs: Collection[str]
) -> dict[str, frozenset[Flow]]:
    """What happens to each of `weights` where it is read: LINEAR, LOOKUP, SAMPLED; several, where it is read in several places.

    Args:     as of roles_of; `weights` are those of which a GaussianValue is given.
    """
    data = _dependents(nodes, inputs)
    gaussian = set(weights)
    for node in nodes:
        if OPERATORS[node.op_type].flow is Flow.LAYOUT and not gaussian.isdisjoint(node.inputs):
            gaussian.update(filter(None, node.outputs))
    flows: dict[str, frozenset[Flow]] = defaultdict(frozenset)
    for node in _learning(nodes, outputs):
        below = frozenset[Flow]().union(*(flows[name] for name in node.outputs))
        for slot, name in _learning_inputs(node):
            flows[name] |= below if OPERATORS[node.op_type].flow is Flow.LAYOUT else {_flow_at(slot, node, data, gaussian)}
    return {name: flows[name] for name in weights}


def _uses_of(nodes: Sequence[Node], outputs: Collection[str], inputs: Collection[str]) -> Mapping[str, _Use]:
    data = _dependents(nodes, inputs)
    uses: dict[str, _Use] = defaultdict(lambda: _Use.NONE)
    for node in _learning(nodes, outputs):
        operator = OPERATORS[node.op_type]
        below = _Use.NONE
        for name in node.outputs:
            below |= uses[name]
        for slot, name in _learning_inputs(node):
            uses[name] |= _use_at(slot, operator, below, constant=data.isdisjoint(node.outputs))
    return uses


def _reason(use: _Use, array: np.ndarray, readers: Sequence[tuple[int, Node]]) -> str:
    """What keeps a constant of two or more dimensions from being a weight, and the first node that reads it."""
    place = f" ({readers[0][1]})" if readers else ""
    if not use:
        learns = any(slot not in OPERATORS[node.op_type].settings + OPERATORS[node.op_type].frozen for slot, node in readers)
        return (
            "no gradient of the output comes back to it" if learns else "it is read where nothing learns: a condition, bound or statistic"
        ) + place
    if _role(use, array) is Role.FIXED:
        if array.size <= 1:
            return f"it is a single number{place}"
        return ("it is a fixed mask" if _is_mask(array) else "it is zero all over, as a beginning, or what a mask lets through") + place
    if _Use.PARAMETER in use:
        return f"it is a bias or scale{place}"
    if _Use.MAKES_WEIGHT in use:
        return f"it holds one number for each channel of a weight{place}"
    return f"it meets the data outside of a weight slot{place}"


def _dependents(nodes: Sequence[Node], inputs: Collection[str]) -> set[str]:
    """The values that depend on `inputs`, other than by their shape."""
    data = set(inputs)
    for node in nodes:
        settings = OPERATORS[node.op_type].settings
        if any(name in data for slot, name in enumerate(node.inputs) if slot not in settings):
            data.update(filter(None, node.outputs))
    return data


def _learning(nodes: Sequence[Node], outputs: Collection[str]) -> Sequence[Node]:
    """The nodes that a gradient of `outputs` reaches, last first."""
    reached = set(outputs)
    found = []
    for node in reversed(nodes):
        steps = OPERATORS[node.op_type].steps
        if casts_to_integers(node) or not any(name in reached for slot, name in enumerate(node.outputs) if slot not in steps):
            continue
        found.append(node)
        reached.update(name for _, name in _learning_inputs(node))
    return found


def _learning_inputs(node: Node) -> Sequence[tuple[int, str]]:
    """Slot and name of the inputs to which a gradient goes on."""
    operator = OPERATORS[node.op_type]
    return [(slot, name) for slot, name in enumerate(node.inputs) if name and slot not in operator.settings and slot not in operator.frozen]


def _use_at(slot: int, operator: Operator, below: _Use, *, constant: bool) -> _Use:
    if operator.flow is Flow.LAYOUT:
        return below
    if constant:
        # A table that is looked up by constants, as that of positions, is a weight too.
        looked_up = operator.flow is Flow.LOOKUP and slot in operator.weights
        makes_weight = looked_up or bool(below & (_Use.WEIGHT | _Use.MAKES_WEIGHT))
        return _Use.OTHER | _Use.MAKES_WEIGHT if makes_weight else _Use.OTHER
    if slot in operator.weights:
        return _Use.WEIGHT
    return _Use.PARAMETER if slot in operator.parameters else _Use.OTHER


def _flow_at(slot: int, node: Node, data: Collection[str], gaussian: Collection[str]) -> Flow:
    operator = OPERATORS[node.op_type]
    constant = not any(name in data for name in node.outputs)
    if slot not in operator.weights or (constant and operator.flow is not Flow.LOOKUP):
        return Flow.SAMPLED
    return operator.flow if operator.treatment is None else operator.treatment(node, slot, gaussian)


def _role(use: _Use, array: np.ndarray) -> Role:
    if _Use.WEIGHT in use and array.ndim >= 2:
        return Role.WEIGHT
    is_parameter = bool(use & (_Use.WEIGHT | _Use.PARAMETER)) and array.ndim > 0
    if use and not is_parameter and array.size > 1 and (_is_mask(array) or _is_nothing(array)):
        return Role.FIXED
    # One element for each channel, as the gain of a normalised weight, is no matrix, however many axes it has.
    if _Use.MAKES_WEIGHT in use and sum(size > 1 for size in array.shape) >= 2:
        return Role.WEIGHT
    return Role.TRAINABLE if use and (is_parameter or array.size > 1) else Role.FIXED


def _is_mask(array: np.ndarray) -> bool:
    """Whether something in it is not finite, or as large as only masks are."""
    return not bool((np.abs(array.astype(np.float64)) < _MASKING).all())


def _is_nothing(array: np.ndarray) -> bool:
    """Whether it may be where a recurrent layer begins, or what a mask lets through: of several dimensions, and zero all over."""
    return array.ndim >= 2 and not array.any()
