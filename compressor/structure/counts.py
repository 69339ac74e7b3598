"""Small integer values that say how many: sizes read off a value, and what is computed of them for Reshape and its like."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from compressor.graph.node import Node
from compressor.structure.sizes import Size
from compressor.structure.units import Units

_MAX_COUNTS = 64  # of a value, and names in a product: no tensor has more axes
_MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True)
class Count:
    """A number that is computed when the graph runs.

    Attributes:
        size: what it is in the original graph, as far as that is known; negative ones are -1, as Reshape has it.
        units: it changes with the number of these that stay.
        plain: it is the number of those on an axis, and nothing else.
    """

    size: Size | None
    units: tuple[Units, ...] = ()
    plain: bool = True


Counts = npt.NDArray[Any]  # of Count; no dimensions or one


def counts_of_sizes(sizes: tuple[Count, ...]) -> Counts:
    counts = np.empty(len(sizes), dtype=object)
    counts[:] = sizes
    return counts


def counts_of_array(array: npt.NDArray[Any]) -> Counts | None:
    """Integers of the file; None where they are none, or too many."""
    if array.ndim > 1 or array.size > _MAX_COUNTS or not np.issubdtype(array.dtype, np.integer):
        return None
    counts = np.empty(array.shape, dtype=object)
    for index, number in np.ndenumerate(array):
        counts[index] = Count(Size(int(number)))
    return counts


def computed_counts(node: Node, inputs: Mapping[int, Counts]) -> Counts | None:
    """What `node`, one of COUNTING, makes of counts, by slot; None where that is not understood."""
    match node.op_type:
        case "Identity":
            return inputs[0]
        case "Cast" if node.int("to", 0) in (TensorProto.INT32, TensorProto.INT64):
            return inputs[0]
        case "Squeeze" | "Unsqueeze" | "Reshape":
            return _flat(node, inputs)
        case "Gather" if (indices := _array(inputs[1])) is not None and inputs[0].ndim == 1:
            return _as_counts(inputs[0][indices]) if _in_range(indices, len(inputs[0])) else None
        case "Slice":
            return _slice(node, inputs)
        case "Concat" if all(part.ndim == 1 for part in inputs.values()):
            return np.concatenate([inputs[slot] for slot in range(len(node.inputs))])
        case name if name in _ARITHMETIC and _broadcasts(inputs):
            return _as_counts(np.frompyfunc(lambda left, right: _combined(left, right, _ARITHMETIC[name]), 2, 1)(inputs[0], inputs[1]))
    return None


def _flat(node: Node, inputs: Mapping[int, Counts]) -> Counts | None:
    """One count as a number or a vector."""
    counts = inputs[0]
    if node.op_type == "Squeeze":
        return counts.reshape(()) if counts.size == 1 else None
    if node.op_type == "Unsqueeze":
        return counts.reshape(1) if counts.ndim == 0 else None
    return counts.reshape(-1) if inputs[1].size == 1 else None


def _slice(node: Node, inputs: Mapping[int, Counts]) -> Counts | None:
    bounds = [_array(inputs[slot]) if slot in inputs else None for slot in range(1, 5)]
    starts, ends, axes, steps = bounds
    if inputs[0].ndim != 1 or starts is None or ends is None or starts.size != 1 or (axes is None and node.has_input(3)):
        return None
    step = 1 if steps is None else int(steps.item())
    return inputs[0][slice(int(starts.item()), int(ends.item()), step)] if step > 0 else None


def follows(counts: Counts, place: int, units: Units) -> bool:
    """Whether, of sizes that the graph computes, the one in a place is the number of these units, and no other one changes with any."""
    count = counts[place]
    alone = count.plain and len(count.units) == 1 and np.array_equal(count.units[0], units)
    return alone and not any(other.units for index, other in enumerate(counts) if index != place)


def plain_numbers(counts: Counts) -> list[int] | None:
    """What they are, where that never changes."""
    numbers = [count.size.number for count in counts.ravel() if count.size is not None and not count.units]
    found = [number for number in numbers if number is not None]
    return found if len(found) == counts.size else None


def _array(counts: Counts) -> npt.NDArray[np.int64] | None:
    numbers = plain_numbers(counts)
    return None if numbers is None else np.array(numbers, np.int64).reshape(counts.shape)


def _in_range(indices: npt.NDArray[np.int64], size: int) -> bool:
    return bool(((-size <= indices) & (indices < size)).all())


def _as_counts(found: Any) -> Counts:
    if isinstance(found, np.ndarray):
        return found
    single = np.empty((), dtype=object)
    single[()] = found
    return single


def _broadcasts(inputs: Mapping[int, Counts]) -> bool:
    return len(inputs) == 2 and (inputs[0].size == 1 or inputs[1].size == 1 or inputs[0].shape == inputs[1].shape)


def _combined(left: Count, right: Count, operation: Callable[[Size, Size], Size | None]) -> Count:
    size = None if left.size is None or right.size is None else operation(left.size, right.size)
    if size is not None and (abs(size.factor) > _MAX_NUMBER or len(size.symbols) > _MAX_COUNTS):
        size = None
    units = {id(each): each for each in (*left.units, *right.units)}  # few, however often a count is added to itself
    return Count(size, tuple(units.values()), plain=False)


def _of_numbers(operation: Callable[[int, int], int]) -> Callable[[Size, Size], Size | None]:
    def run(left: Size, right: Size) -> Size | None:
        return Size(operation(left.factor, right.factor)) if left.number is not None and right.number is not None else None

    return run


_ARITHMETIC: dict[str, Callable[[Size, Size], Size | None]] = {
    "Mul": Size.times,
    "Div": lambda left, right: left.over(right),
    "Add": _of_numbers(lambda left, right: left + right),
    "Sub": _of_numbers(lambda left, right: left - right),
    "Mod": lambda left, right: None if not right.factor else _of_numbers(lambda a, b: a % b)(left, right),
}

COUNTING = frozenset({"Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze", *_ARITHMETIC})
