"""Pooling over sliding windows and over whole planes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import check_elements, operator, plain_operators
from compressor.graph.ops.window import ResolvedWindow, Window

_MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_MAX_POOL_WITH_PLACES = (F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices)
_AVERAGE_POOL = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_CONV = (F.conv1d, F.conv2d, F.conv3d)


@operator("MaxPool", multiple=True, steps=(1,))
def max_pool(node: Node) -> Run:
    kernel, window = _kernel(node), Window(node)
    with_places = len(node.outputs) > 1 and node.outputs[1] != ""
    column_major = bool(node.int("storage_order", 0))

    def run(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        at = window.resolve(x.shape[2:], kernel)
        if _fits_torch(at, x.shape[2:]):
            padded, padding, moved = x, at.begin, [0] * len(kernel)
        else:
            padded, padding, moved = _fit(x, at, float("-inf")), [0] * len(kernel), at.begin
        if not with_places:
            return _MAX_POOL[len(kernel) - 1](padded, kernel, at.strides, padding, at.dilations)
        y, places = _MAX_POOL_WITH_PLACES[len(kernel) - 1](padded, kernel, at.strides, padding, at.dilations)
        return y, _places_in_tensor(x.shape, places, padded.shape, moved, column_major)

    return run


def _places_in_tensor(shape: torch.Size, places: Tensor, padded: torch.Size, moved: list[int], column_major: bool) -> Tensor:
    """Places in a plane of the shape `padded`, into which the plane of `shape` was moved, as places in the whole tensor."""
    axes = range(2, len(shape))
    positions: dict[int, Tensor] = {}
    for axis in reversed(axes):
        positions[axis] = places % padded[axis] - moved[axis - 2]
        places = places // padded[axis]
    found = torch.arange(shape[:2].numel(), device=places.device).reshape(*shape[:2], *[1] * len(axes)) * shape[2:].numel()
    stride = 1
    for axis in axes if column_major else reversed(axes):
        found = found + positions[axis] * stride
        stride *= shape[axis]
    return found


@operator("MaxUnpool", settings=(2,), frozen=(1,))
def max_unpool(node: Node) -> Run:
    kernel = _kernel(node)
    strides, pads = node.ints("strides") or [1] * len(kernel), node.ints("pads") or [0] * 2 * len(kernel)
    cut = [begin + end for begin, end in zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)]

    def run(x: Tensor, places: Tensor, output_shape: Tensor | None = None) -> Tensor:
        sizes = [(n - 1) * s - c + k for n, s, c, k in zip(x.shape[2:], strides, cut, kernel, strict=True)]
        wanted: list[int] = [*x.shape[:2], *sizes] if output_shape is None else output_shape.tolist()
        check_elements(node, [*x.shape[:2], *sizes])
        check_elements(node, wanted)
        flat = x.new_zeros(math.prod([*x.shape[:2], *sizes])).scatter(0, places.flatten(), x.flatten())
        missing = [pad for size, full in zip(reversed(sizes), reversed(wanted), strict=False) for pad in (0, full - size)]
        return F.pad(flat.reshape(*x.shape[:2], *sizes), missing)

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
        starts = torch.arange(at.output[axis], device=x.device) * at.strides[axis] - at.begin[axis]
        # The window is at start + dilation * n for n from 0 to kernel - 1: those from the first at or after low, before high.
        before = _steps_up_to(low - starts, at.dilations[axis], at.kernel[axis])
        inside = _steps_up_to(high - starts, at.dilations[axis], at.kernel[axis]) - before
        counts = counts.unsqueeze(-1) * inside.to(x.dtype)
    return counts.squeeze(0)


def _steps_up_to(distance: Tensor, step: int, most: int) -> Tensor:
    """How many of 0, step, 2 * step, ... lie before `distance`, at most `most`."""
    return torch.div(distance + step - 1, step, rounding_mode="floor").clamp(0, most)
