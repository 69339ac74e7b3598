"""Pooling over sliding windows and over whole planes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import operator, plain_operators
from compressor.graph.ops.window import ResolvedWindow, Window

_MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE_POOL = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_CONV = (F.conv1d, F.conv2d, F.conv3d)


@operator("MaxPool")
def max_pool(node: Node) -> Run:
    kernel, window = _kernel(node), Window(node)

    def run(x: Tensor) -> Tensor:
        at = window.resolve(x.shape[2:], kernel)
        padding = at.begin
        if not _fits_torch(at, x.shape[2:]):
            x, padding = _fit(x, at, float("-inf")), [0] * len(kernel)
        return _MAX_POOL[len(kernel) - 1](x, kernel, at.strides, padding, at.dilations)

    return run


@operator("AveragePool")
def average_pool(node: Node) -> Run:
    kernel, window = _kernel(node), Window(node)
    include_pad = bool(node.int("count_include_pad", 0))

    def run(x: Tensor) -> Tensor:
        at = window.resolve(x.shape[2:], kernel)
        if _fits_torch(at, x.shape[2:]) and set(at.dilations) == {1}:
            return _AVERAGE_POOL[len(kernel) - 1](x, kernel, at.strides, at.begin, False, include_pad)
        return _window_sums(x, at) / _window_counts(x, at, include_pad)

    return run


@operator("LpPool")
def lp_pool(node: Node) -> Run:
    kernel, window, p = _kernel(node), Window(node), node.int("p", 2)

    def run(x: Tensor) -> Tensor:
        at = window.resolve(x.shape[2:], kernel)
        return _window_sums(x.abs().pow(p), at).pow(1.0 / p)

    return run


def _planes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


plain_operators(
    __name__,
    {
        "GlobalAveragePool": lambda x: x.mean(_planes(x), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(_planes(x), keepdim=True),
    },
)


@operator("GlobalLpPool")
def global_lp_pool(node: Node) -> Run:
    p = node.int("p", 2)
    return lambda x: x.abs().pow(p).sum(_planes(x), keepdim=True).pow(1.0 / p)


def _kernel(node: Node) -> list[int]:
    kernel = node.ints("kernel_shape") or []
    if not 1 <= len(kernel) <= 3:
        raise node.unsupported(f"{len(kernel)} spatial dimensions; 1 to 3 are supported")
    return kernel


def _fits_torch(at: ResolvedWindow, size: torch.Size) -> bool:
    """Whether torch's own padding gives these windows: symmetric, at most half a kernel, nothing left over by ceil_mode."""
    return at.begin == at.end and all(
        2 * at.begin[axis] <= at.kernel[axis]
        and at.begin[axis] >= 0
        and (size[axis] + 2 * at.begin[axis] - at.extent(axis)) // at.strides[axis] + 1 == at.output[axis]
        for axis in range(len(size))
    )


def _fit(x: Tensor, at: ResolvedWindow, value: float) -> Tensor:
    """x padded (or cut) to exactly the elements that the windows of `at` span."""
    pads = []
    for axis in reversed(range(len(at.kernel))):
        needed = (at.output[axis] - 1) * at.strides[axis] + at.extent(axis)
        pads += [at.begin[axis], needed - at.begin[axis] - x.shape[2 + axis]]
    return F.pad(x, pads, value=value)


def _window_sums(x: Tensor, at: ResolvedWindow) -> Tensor:
    padded = _fit(x, at, 0.0)
    planes = padded.reshape(-1, 1, *padded.shape[2:])
    sums = _CONV[len(at.kernel) - 1](planes, x.new_ones([1, 1, *at.kernel]), None, at.strides, 0, at.dilations)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


def _window_counts(x: Tensor, at: ResolvedWindow, include_pad: bool) -> Tensor:
    """Elements that each window averages over: those of x, and with `include_pad` those of the declared padding too."""
    counts = x.new_ones([1])
    for axis in range(len(at.kernel)):
        low = -at.begin[axis] if include_pad else 0
        high = x.shape[2 + axis] + (at.end[axis] if include_pad else 0)
        starts = [window * at.strides[axis] - at.begin[axis] for window in range(at.output[axis])]
        positions = [range(start, start + at.extent(axis), at.dilations[axis]) for start in starts]
        inside = [sum(low <= position < high for position in taken) for taken in positions]
        counts = counts.unsqueeze(-1) * x.new_tensor(inside)
    return counts.squeeze(0)
