"""Elementwise arithmetic, unary and with broadcasting."""

from functools import reduce

import torch
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import operator, plain_operators


def _divide(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return torch.div(a, b)
    if a.dtype in _TRAPPING and a.device.type == "cpu" and bool((b == -1).any() and ((a == torch.iinfo(a.dtype).min) & (b == -1)).any()):
        raise ValueError("the smallest integer is divided by -1")  # which ends the process
    return torch.div(a, b, rounding_mode="trunc")


_TRAPPING = (torch.int32, torch.int64)


def _mean(*values: Tensor) -> Tensor:
    return reduce(torch.add, values) / len(values)


plain_operators(
    __name__,
    {
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Div": _divide,
        "Pow": lambda base, exponent: torch.pow(base, exponent).to(base.dtype),
        "Neg": torch.neg,
        "Abs": torch.abs,
        "Sqrt": torch.sqrt,
        "Reciprocal": torch.reciprocal,
        "Exp": torch.exp,
        "Log": torch.log,
        "Sum": lambda *values: reduce(torch.add, values),
        "Mean": _mean,
        "Min": lambda *values: reduce(torch.minimum, values),
        "Max": lambda *values: reduce(torch.maximum, values),
        "Sin": torch.sin,
        "Cos": torch.cos,
        "Tan": torch.tan,
        "Asin": torch.asin,
        "Acos": torch.acos,
        "Atan": torch.atan,
        "Sinh": torch.sinh,
        "Cosh": torch.cosh,
        "Asinh": torch.asinh,
        "Acosh": torch.acosh,
        "Atanh": torch.atanh,
        "Erf": torch.erf,
    },
)


# Steps, whose gradient is 0: the data could not hold on to a weight before one, and the prior would take it.
plain_operators(__name__, {"Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sign": torch.sign}, frozen=(0,))


@operator("Mod")
def mod(node: Node) -> Run:
    # fmod takes the sign of the dividend, remainder that of the divisor.
    return torch.fmod if node.int("fmod", 0) else torch.remainder


@operator("Clip", settings=(1, 2))
def clip(node: Node) -> Run:
    del node

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        if low is None and high is None:
            return x
        if all(bound is None or bound.device.type == "cpu" for bound in (low, high)):
            return torch.clamp(x, *(None if bound is None else bound.item() for bound in (low, high)))
        return torch.clamp(x, low, high)

    return run


@operator("CumSum", settings=(1,))
def cumulative_sum(node: Node) -> Run:
    exclusive, reverse = bool(node.int("exclusive", 0)), bool(node.int("reverse", 0))

    def run(x: Tensor, axis: Tensor) -> Tensor:
        dim = int(axis)
        y = (x.flip(dim) if reverse else x).cumsum(dim, dtype=x.dtype)
        if exclusive:  # each sum without its own element: moved by one, not subtracted, which would lose digits
            y = torch.cat([torch.zeros_like(y.narrow(dim, 0, 1)), y.narrow(dim, 0, y.shape[dim] - 1)], dim)
        return y.flip(dim) if reverse else y

    return run
