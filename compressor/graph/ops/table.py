"""The table of operators: how each is built from its node, and how a Gaussian weight passes through it."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from compressor.errors import GraphTooLarge
from compressor.graph.gaussian import Positions, Run
from compressor.graph.node import Node

Build = Callable[[Node], Run]

# Elements of one tensor that an operator may make out of nothing (ConstantOfShape, Expand, Tile, Range): 1 GiB of float32.
MAX_MADE_ELEMENTS = 2**28

# Pieces that one operator may cut a tensor into: each is an object of Python.
MAX_PARTS = 2**14


class Flow(Enum):
    """What happens to a Gaussian weight that reaches the operator. Those of CONTRACTION and RECURRENT take a GaussianValue themselves."""

    LAYOUT = "mean and variance alike"
    LINEAR = "local reparameterisation"
    CONVOLUTION = "drawn for each half of the batch, or local reparameterisation where that is cheaper"
    LOOKUP = "noise for each lookup"
    CONTRACTION = "local reparameterisation where it is exact, else sampled once"
    RECURRENT = "input matrix by local reparameterisation, recurrent one sampled once"
    SAMPLED = "sampled once"


# (node, weight slot, the names of all Gaussian values) -> what happens to the weight there.
Treatment = Callable[[Node, int, Collection[str]], Flow]


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    Args:
        build: resolves attributes and opset once, and gives the function that runs the node on its inputs.
        family: the file it stands in.
        flow: how a Gaussian weight passes.
        weights: input slots of weights: those in which the operator is linear or looks up, and the matrices of a recurrent one.
        parameters: slots of biases and scales: trainable even where they hold one element.
        settings: slots that are read as plain numbers (shapes, axes, bounds): never trainable, and left on the CPU.
        frozen: slots of data that do not learn (conditions, indices, statistics), and those through which no gradient passes.
        variance: builds f(x^2, var) of a linear operator where it is not `build` without bias.
        positions: builds f(x, w), at how many places a convolution uses each element of w.
        takes_mode: the function's first argument is whether the module trains.
        multiple: the function gives all outputs of the node; otherwise only the first may be used.
        steps: output slots that hold positions or conditions: no gradient comes back from them.
        treatment: LINEAR or SAMPLED, where the flow leaves that open.
    """

    build: Build
    family: str
    flow: Flow = Flow.SAMPLED
    weights: tuple[int, ...] = ()
    parameters: tuple[int, ...] = ()
    settings: tuple[int, ...] = ()
    frozen: tuple[int, ...] = ()
    variance: Build | None = None
    positions: Callable[[Node], Positions] | None = None
    takes_mode: bool = False
    multiple: bool = False
    steps: tuple[int, ...] = ()
    treatment: Treatment | None = None


OPERATORS: dict[str, Operator] = {}


def operator(
    *names: str,
    flow: Flow = Flow.SAMPLED,
    weights: tuple[int, ...] = (),
    parameters: tuple[int, ...] = (),
    settings: tuple[int, ...] = (),
    frozen: tuple[int, ...] = (),
    variance: Build | None = None,
    positions: Callable[[Node], Positions] | None = None,
    takes_mode: bool = False,
    multiple: bool = False,
    steps: tuple[int, ...] = (),
    treatment: Treatment | None = None,
) -> Callable[[Build], Build]:
    """Enters the decorated builder in the table under `names`; the family is the name of its file."""

    def enter(build: Build) -> Build:
        for name in names:
            OPERATORS[name] = Operator(
                build,
                _family(build.__module__),
                flow,
                weights,
                parameters,
                settings,
                frozen,
                variance,
                positions,
                takes_mode,
                multiple,
                steps,
                treatment,
            )
        return build

    return enter


def plain_operators(module: str, runs: Mapping[str, Run], *, settings: tuple[int, ...] = (), frozen: tuple[int, ...] = ()) -> None:
    """Enters operators without attributes: their function is the same for every node. `module` is the caller's __name__."""
    for name, run in runs.items():
        OPERATORS[name] = Operator(partial(_same_for_every_node, run), _family(module), settings=settings, frozen=frozen)


def check_elements(node: Node, shape: Sequence[int]) -> None:
    """Raises GraphTooLarge where `node` would make a tensor of more than MAX_MADE_ELEMENTS."""
    if math.prod(shape) > MAX_MADE_ELEMENTS:
        raise GraphTooLarge(
            f"{node} makes a tensor of {math.prod(shape):,} elements; at most {MAX_MADE_ELEMENTS:,} are allowed.",
            param=node.label,
            suggestion="Export the model with smaller constant shapes.",
        )


def check_parts(node: Node, count: int) -> None:
    """Raises GraphTooLarge where `node` would cut a tensor into more than MAX_PARTS pieces."""
    if count > MAX_PARTS:
        raise GraphTooLarge(
            f"{node} cuts a tensor into {count:,} pieces; at most {MAX_PARTS:,} are allowed.",
            param=node.label,
            suggestion="Export the model for shorter sequences.",
        )


def _same_for_every_node(run: Run, node: Node) -> Run:  # noqa: ARG001 -- the signature of a builder
    return run


def _family(module: str) -> str:
    return module.rsplit(".", 1)[-1]
