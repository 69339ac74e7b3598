"""Reductions over axes, given as an attribute or as an input."""

from collections.abc import Callable

import torch
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import operator

Axes = tuple[int, ...]


def _product(x: Tensor, axes: Axes) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


def _extreme(reduce: Callable[..., Tensor], empty: Callable[[torch.dtype], float]) -> Callable[[Tensor, Axes], Tensor]:
    def run(x: Tensor, axes: Axes) -> Tensor:
        if any(x.shape[axis] == 0 for axis in axes):
            return x.new_full([1 if axis in axes else size for axis, size in enumerate(x.shape)], empty(x.dtype))
        return reduce(x.byte(), axes, keepdim=True).bool() if x.dtype == torch.bool else reduce(x, axes, keepdim=True)

    return run


def _lowest(dtype: torch.dtype) -> float:
    return float("-inf") if dtype.is_floating_point else 0 if dtype == torch.bool else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float:
    return float("inf") if dtype.is_floating_point else 1 if dtype == torch.bool else torch.iinfo(dtype).max


def _fractional(reduce: Callable[[Tensor, Axes], Tensor]) -> Callable[[Tensor, Axes], Tensor]:
    """Of integers too, whose result is an integer again, cut off towards zero."""
    return lambda x, axes: reduce(x, axes) if x.dtype.is_floating_point else reduce(x.double(), axes).to(x.dtype)


REDUCTIONS: dict[str, Callable[[Tensor, Axes], Tensor]] = {
    "ReduceSum": lambda x, axes: x.sum(axes, keepdim=True, dtype=x.dtype),
    "ReduceMean": _fractional(lambda x, axes: x.mean(axes, keepdim=True)),
    "ReduceMax": _extreme(torch.amax, _lowest),
    "ReduceMin": _extreme(torch.amin, _highest),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes: x.abs().sum(axes, keepdim=True, dtype=x.dtype),
    "ReduceL2": _fractional(lambda x, axes: (x * x).sum(axes, keepdim=True).sqrt()),
    "ReduceLogSum": _fractional(lambda x, axes: x.sum(axes, keepdim=True).log()),
    "ReduceLogSumExp": _fractional(lambda x, axes: x.logsumexp(axes, keepdim=True)),
    "ReduceSumSquare": lambda x, axes: (x * x).sum(axes, keepdim=True, dtype=x.dtype),
}


@operator(*REDUCTIONS, settings=(1,))
def reduction(node: Node) -> Run:
    reduce = REDUCTIONS[node.op_type]
    attribute, keep = node.ints("axes"), bool(node.int("keepdims", 1))
    noop_without_axes = bool(node.int("noop_with_empty_axes", 0))

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = attribute if axes is None else axes.tolist()
        if not chosen:
            chosen = [] if noop_without_axes else list(range(x.dim()))
        normal = tuple(sorted(axis % x.dim() for axis in chosen))
        # torch reduces over all axes where it is given none.
        reduced = reduce(x, normal) if normal else reduce(x.unsqueeze(0), (0,)).squeeze(0)
        return reduced if keep or not normal else reduced.squeeze(normal)

    return run


@operator("ArgMax", "ArgMin", frozen=(0,))
def arg_extreme(node: Node) -> Run:
    find = torch.argmax if node.op_type == "ArgMax" else torch.argmin
    axis, keep = node.int("axis", 0), bool(node.int("keepdims", 1))
    if node.int("select_last_index", 0):
        return lambda x: x.shape[axis] - 1 - find(x.flip(axis), dim=axis, keepdim=keep)
    return lambda x: find(x, dim=axis, keepdim=keep)
