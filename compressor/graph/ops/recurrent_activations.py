"""The activations that a recurrent node may name, with their alpha and beta."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.node import Node

Function = Callable[[Tensor], Tensor]

DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}

# name: (the function given its constants, the defaults of alpha and beta as far as it has them). Lower case: ONNX Runtime takes any case.
# None: no default that ONNX and ONNX Runtime agree on.
_ACTIVATIONS: dict[str, tuple[Callable[..., Function], tuple[float | None, ...]]] = {
    "sigmoid": (lambda: torch.sigmoid, ()),
    "tanh": (lambda: torch.tanh, ()),
    "relu": (lambda: torch.relu, ()),
    "softsign": (lambda: F.softsign, ()),
    "softplus": (lambda: F.softplus, ()),
    "elu": (lambda alpha: lambda x: F.elu(x, alpha), (1.0,)),
    "leakyrelu": (lambda alpha: lambda x: F.leaky_relu(x, alpha), (0.01,)),
    "thresholdedrelu": (lambda alpha: lambda x: F.threshold(x, alpha, 0.0), (None,)),
    "affine": (lambda alpha, beta: lambda x: alpha * x + beta, (None, None)),
    "scaledtanh": (lambda alpha, beta: lambda x: alpha * torch.tanh(beta * x), (None, None)),
    "hardsigmoid": (lambda alpha, beta: lambda x: (alpha * x + beta).clamp(0.0, 1.0), (0.2, 0.5)),
}


def recurrent_activations(node: Node, directions: int) -> list[list[Function]]:
    """The functions of each direction, in the order of the operator's definition.

    Raises: UnsupportedModel for a function that ONNX does not list, or that lacks a constant.
    """
    default = DEFAULTS[node.op_type]
    names = [bytes(name).decode("utf-8", "replace") for name in node.attributes.get("activations") or []] or default * directions
    # Each list of constants is used up in the order of the functions, by those that have such a constant.
    constants = tuple(iter(node.attributes.get(name) or []) for name in ("activation_alpha", "activation_beta"))
    functions = [_function(node, name, constants) for name in names]
    if len(functions) != len(default) * directions:
        raise node.unsupported(f"{len(functions)} activations for {directions} direction(s)")
    return [functions[start : start + len(default)] for start in range(0, len(functions), len(default))]


def uses_default_activations(node: Node) -> bool:
    """Whether every direction has the functions that the operator has where none are named."""
    default = [name.encode() for name in DEFAULTS[node.op_type]]
    named = list(node.attributes.get("activations") or [])
    return not named or named == default * (len(named) // len(default))


def _function(node: Node, name: str, constants: tuple[Iterator[float], ...]) -> Function:
    if name.lower() not in _ACTIVATIONS:
        raise node.unsupported(f"activation {name!r}")
    make, defaults = _ACTIVATIONS[name.lower()]
    chosen = [next(given, default) for given, default in zip(constants, defaults, strict=False)]
    if None in chosen:
        raise node.unsupported(f"activation {name!r} without its constants")
    return make(*chosen)
