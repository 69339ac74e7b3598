"""The nodes of a graph as a list of steps in which every name is already a number: what OnnxModule runs."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.errors import CompressionError, InvalidModel, UnsupportedOperator
from compressor.graph.gaussian import Run, lift_convolution, lift_layout, lift_linear, lift_lookup, lift_sampled
from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS, Flow
from compressor.graph.ops.table import Operator
from compressor.graph.reader import ONNX_DOMAINS

# Slots that hold no value of the graph: an absent optional input, whether the module trains, an output that nobody reads.
_ABSENT, _MODE, _UNREAD = 0, 1, 2

# How many missing operators an error names at most.
_MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class _Step:
    run: Run
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]  # slots that no later step reads
    data: tuple[int, ...]  # positions of the arguments that must lie on one device
    node: Node


class Program:
    """Runs nodes in order over a list of values.

    Args:
        nodes: in an order in which they can run.
        outputs: names that `run` may be asked for.
        variable: names of values that may be given as GaussianValue.

    Raises:
        UnsupportedOperator: naming every operator that is missing, with its node and the opset.
        UnsupportedModel: where a node uses a feature of its operator that is missing.
    """

    def __init__(self, nodes: Sequence[Node], outputs: Collection[str], variable: Collection[str] = ()) -> None:
        _check_operators(nodes)
        _check_outputs(nodes, outputs)
        self._slots: dict[str, int] = {"": _ABSENT}
        gaussian = set(variable)
        steps = []
        for node, dead in zip(nodes, _dead_after_each(nodes, outputs), strict=True):
            operator = OPERATORS[node.op_type]
            run = _build(node, operator)
            if gaussian.intersection(node.inputs):
                run = _lift(run, node, operator)
                if operator.flow is Flow.LAYOUT:
                    gaussian.update(node.outputs)
            steps.append(self._step(run, node, operator, dead))
        self._steps = tuple(steps)
        made = {name: count for count, node in enumerate(nodes, 1) for name in node.outputs}
        self._lengths = {name: made.get(name, 0) for name in outputs}  # how many steps must run before the value is there

    def slot(self, name: str) -> int:
        """The number under which `run` takes the value called `name`."""
        return self._slots.setdefault(name, len(self._slots) + _UNREAD)

    def run(self, output: str, values: Iterable[tuple[int, Any]], *, training: bool, device: torch.device) -> Tensor:
        """The value of `output`.

        Args:
            output: one of the names given at construction.
            values: inputs and constants by slot: tensors, or GaussianValue for the variable ones.
            training: whether nodes with a training mode of their own use it.
            device: where the data are; shapes and single numbers stay on the CPU.
        """
        env: list[Any] = [None] * (len(self._slots) + _UNREAD)
        env[_MODE] = training
        for slot, value in values:
            env[slot] = value
        move = device.type != "cpu"
        step = None
        try:
            for step in self._steps[: self._lengths[output]]:
                args = [env[slot] for slot in step.inputs]
                if move:
                    _move_data(args, step.data, device)
                result = step.run(*args)
                if type(result) is tuple:
                    for slot, value in zip(step.outputs, result, strict=False):
                        env[slot] = value
                else:
                    env[step.outputs[0]] = result
                for slot in step.dead:
                    env[slot] = None
        except Exception as error:
            error.add_note(f"in {step.node}" if step is not None else "before the first node")
            raise
        found: Tensor = env[self._slots[output]]
        return found

    def _step(self, run: Run, node: Node, operator: Operator, dead: Collection[str]) -> _Step:
        inputs = tuple(self.slot(name) for name in node.inputs)
        data = tuple(index for index in range(len(inputs)) if index not in operator.settings)
        if operator.takes_mode:
            inputs = (_MODE, *inputs)
            data = tuple(index + 1 for index in data)
        outputs = tuple(self.slot(name) if name else _UNREAD for name in node.outputs)
        return _Step(run, inputs, outputs, tuple(self.slot(name) for name in dead), data, node)


def _build(node: Node, operator: Operator) -> Run:
    try:
        return operator.build(node)
    except CompressionError:
        raise
    except Exception as error:  # the attributes are the client's: a list where a number should be, say
        raise InvalidModel(f"The attributes of {node} are not valid: {error}", param=node.label, suggestion="Export it again.") from error


def _lift(run: Run, node: Node, operator: Operator) -> Run:
    match operator.flow:
        case Flow.LAYOUT:
            return lift_layout(run)
        case Flow.LINEAR:
            variance = run if operator.variance is None else operator.variance(node)
            return lift_linear(run, variance, operator.weights)
        case Flow.CONVOLUTION:
            assert operator.positions is not None  # noqa: S101  every convolution of the table has it
            return lift_convolution(run, operator.positions(node))
        case Flow.LOOKUP:
            return lift_lookup(run)
        case Flow.CONTRACTION | Flow.RECURRENT:
            return run
        case Flow.SAMPLED:
            return lift_sampled(run)


def _move_data(args: list[Any], data: tuple[int, ...], device: torch.device) -> None:
    """Constants that meet data follow them to the device: integers are kept on the CPU, where shapes are computed."""
    tensors = [(index, args[index]) for index in data if isinstance(args[index], Tensor)]
    if any(tensor.device.type != "cpu" for _, tensor in tensors):
        for index, tensor in tensors:
            if tensor.dim() > 0 and tensor.device.type == "cpu":
                args[index] = tensor.to(device)


def _dead_after_each(nodes: Sequence[Node], outputs: Collection[str]) -> list[list[str]]:
    """For each node the values that nothing after it reads."""
    made = {name for node in nodes for name in node.outputs if name}.difference(outputs)
    dead: list[list[str]] = []
    for node in reversed(nodes):
        last = made.intersection((*node.inputs, *node.outputs))
        made -= last
        dead.append(sorted(last))
    return dead[::-1]


def _check_operators(nodes: Sequence[Node]) -> None:
    missing = [node for node in nodes if node.op_type not in OPERATORS or node.domain not in ONNX_DOMAINS]
    if missing:
        named = "; ".join(f"{node.domain + '.' if node.domain else ''}{node} (opset {node.opset})" for node in missing[:_MAX_NAMED])
        more = f"; and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        raise UnsupportedOperator(
            f"Not supported: {named}{more}.",
            param=missing[0].label,
            suggestion="Export the model with operators of the table in the README; the others must be replaced before the export.",
        )


def _check_outputs(nodes: Sequence[Node], outputs: Collection[str]) -> None:
    read = {name for node in nodes for name in node.inputs}.union(outputs)
    for node in nodes:
        if not OPERATORS[node.op_type].multiple and read.intersection(filter(None, node.outputs[1:])):
            raise node.unsupported("only the first output is supported")
