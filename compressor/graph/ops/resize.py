"""Resize: one axis after the other, each output element a weighted sum of a few elements of the input, its taps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.errors import GraphTooLarge
from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import check_elements, operator

_NEAREST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda position: np.ceil(position - np.float32(0.5)),
    "round_prefer_ceil": lambda position: np.floor(position + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


# Taps of one element at most: shrinking further than a thousandfold without aliasing is no layer of a network.
_MAX_TAPS = 2**12
# Taps of one axis together, which are numbers here, and not of torch, whose tensors are counted.
_MAX_AXIS_TAPS = 2**20
# Those of smaller axes are kept for the next step.
_MAX_KEPT_TAPS = 2**15


@dataclass(frozen=True)
class _Axis:
    """One axis and its new size; `start` and `end` of the region to resize are parts of the axis.

    Positions are computed in float32, as in ONNX Runtime and PyTorch: which element is the nearest may hang on the last digit.
    """

    axis: int
    before: int
    after: int
    scale: np.float32
    start: np.float32
    end: np.float32

    def is_identity(self) -> bool:
        return self.before == self.after and self.scale == 1 and self.start == 0 and self.end == 1


@dataclass(frozen=True)
class _Taps:
    """The taps of an axis, (taps, after): where they lie and what they weigh; None: one tap that is copied.

    `outside`, (after): which positions lie outside of the input and get the extrapolation value.
    """

    sources: np.ndarray
    weights: np.ndarray | None
    outside: np.ndarray | None


@operator("Resize", settings=(1, 2, 3))
def resize(node: Node) -> Run:
    filters = _Filter(node)
    extrapolation = node.float("extrapolation_value", 0.0)
    cache: dict[tuple[_Axis, ...], list[_Taps]] = {}

    def run(x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        axes = tuple(axis for axis in _axes(node, x.shape, *(_listed(given) for given in (roi, scales, sizes))) if not axis.is_identity())
        shape = list(x.shape)
        for axis in axes:
            shape[axis.axis] = axis.after
            check_elements(node, shape)
        if 0 in shape:
            return x.new_zeros(shape)
        found = cache.get(axes)
        if found is None:  # kept, since a training run asks for the same sizes every step
            found = [filters.taps(axis) for axis in axes]
            cache.clear()
            if sum(taps.sources.size for taps in found) <= _MAX_KEPT_TAPS:
                cache[axes] = found
        for axis, taps in zip(axes, found, strict=True):
            x = _apply(x, axis.axis, taps, extrapolation)
        return x

    return run


class _Filter:
    """The attributes of a node that say which elements an output element is made of."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._mode = node.string("mode", "nearest")
        self._coordinates = node.string("coordinate_transformation_mode", "half_pixel")
        self._nearest = _NEAREST[node.string("nearest_mode", "round_prefer_floor")]
        self._antialias = bool(node.int("antialias", 0))
        self._exclude_outside = bool(node.int("exclude_outside", 0))
        self._cubic = node.float("cubic_coeff_a", -0.75)
        if self._mode not in ("nearest", "linear", "cubic"):
            raise node.unsupported(f"mode {self._mode!r}")
        if self._coordinates not in _POSITIONS:
            raise node.unsupported(f"coordinate_transformation_mode {self._coordinates!r}")

    def taps(self, axis: _Axis) -> _Taps:
        self._check_taps(axis, 1)
        position = _POSITIONS[self._coordinates](axis, np.arange(axis.after, dtype=np.float32))
        cropped = self._coordinates == "tf_crop_and_resize"
        outside = (position < 0) | (position > axis.before - 1) if cropped else None
        if self._mode == "nearest":
            sources, weights = self._nearest(position)[None], None
        else:
            sources, weights = self._weighted(axis, position)
        return _Taps(sources.clip(0, axis.before - 1).astype(np.int64), weights, outside)

    def _weighted(self, axis: _Axis, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sources, which may lie outside of the input, and weights."""
        # Where it shrinks without aliasing, the kernel is as much wider.
        stretch = min(float(axis.scale), 1.0) if self._antialias else 1.0
        reach = -int(np.floor(-(1 if self._mode == "linear" else 2) / stretch) + 1)
        if 2 * reach + 2 > _MAX_TAPS:
            raise self._node.unsupported(f"antialiasing over {2 * reach + 2:,} elements")
        self._check_taps(axis, 2 * reach + 2)
        offsets = np.arange(-reach, reach + 2)[:, None]
        left = np.ceil(position) - 1
        distance = np.abs(offsets - (position - left).astype(np.float64)) * stretch
        weights = np.maximum(1.0 - distance, 0.0) if self._mode == "linear" else _cubic(distance, self._cubic)
        sources = left + offsets
        if self._exclude_outside:
            weights = np.where((sources < 0) | (sources >= axis.before), 0.0, weights)
        total = weights.sum(0)
        return sources, weights / np.where(total == 0, 1.0, total)

    def _check_taps(self, axis: _Axis, taps: int) -> None:
        if taps * axis.after > _MAX_AXIS_TAPS:
            raise GraphTooLarge(
                f"{self._node} makes an axis of {axis.after:,} elements out of {taps} each; at most {_MAX_AXIS_TAPS:,} are allowed.",
                param=self._node.label,
                suggestion="Export the model for smaller images.",
            )


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """The convolution kernel of Keys 1981, doi:10.1109/TASSP.1981.1163711, eq. 4."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _half_pixel(axis: _Axis, x: np.ndarray) -> np.ndarray:
    return (x + np.float32(0.5)) / axis.scale - np.float32(0.5)


def _half_pixel_symmetric(axis: _Axis, x: np.ndarray) -> np.ndarray:
    """Keeps the centre of the input in the centre of the output, whose width may have been cut to a whole number."""
    shift = np.float32(axis.before) / 2 * (1 - np.float32(axis.after) / (axis.scale * np.float32(axis.before)))
    return shift + (x + np.float32(0.5)) / axis.scale - np.float32(0.5)


def _between_corners(axis: _Axis, x: np.ndarray) -> np.ndarray:
    """The output's corners lie on those of the region. As in PyTorch and ONNX Runtime, its width is the whole number of elements."""
    last = np.float32(axis.before - 1)
    if axis.after == 1:
        return np.full_like(x, (axis.start + axis.end) * last / 2)
    return axis.start * last + x * (axis.end - axis.start) * last / np.float32(axis.after - 1)


_POSITIONS: dict[str, Callable[[_Axis, np.ndarray], np.ndarray]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda axis, x: _half_pixel(axis, x) if axis.after > 1 else np.zeros_like(x),
    "tf_half_pixel_for_nn": lambda axis, x: (x + np.float32(0.5)) / axis.scale,  # opset 11 only
    "asymmetric": lambda axis, x: x / axis.scale,
    "align_corners": lambda axis, x: _between_corners(axis, x) if axis.after > 1 else np.zeros_like(x),
    "tf_crop_and_resize": _between_corners,
}


def _axes(node: Node, shape: torch.Size, roi: list[float], scales: list[float], sizes: list[int]) -> list[_Axis]:
    """The axes that the node speaks of, with their new sizes."""
    chosen = [axis % len(shape) for axis in node.ints("axes") or range(len(shape))]
    before = [shape[axis] for axis in chosen]
    policy = node.string("keep_aspect_ratio_policy", "stretch")
    if not sizes:
        factors = [np.float32(scale) for scale in scales]
        sizes = [int(np.float32(size) * factor) for size, factor in zip(before, factors, strict=True)]
    elif policy == "stretch":
        factors = [np.float32(after) / np.float32(size) for after, size in zip(sizes, before, strict=True)]
    else:
        choose = {"not_larger": min, "not_smaller": max}[policy]
        common = choose(after / size for after, size in zip(sizes, before, strict=True))
        factors = [np.float32(common)] * len(before)
        sizes = [int(common * size + 0.5) for size in before]
    if min(factors) <= 0 or min(sizes) < 0:
        raise ValueError(f"a size of {sizes} by scales of {factors}")
    if node.string("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        roi = [0.0] * len(chosen) + [1.0] * len(chosen)
    starts, ends = (np.array(part, dtype=np.float32) for part in (roi[: len(chosen)], roi[len(chosen) :]))
    return [_Axis(*values) for values in zip(chosen, before, sizes, factors, starts, ends, strict=True)]


def _apply(x: Tensor, axis: int, taps: _Taps, extrapolation: float) -> Tensor:
    def along(values: np.ndarray, dtype: torch.dtype) -> Tensor:
        """One number for each position on the axis, in the shape that broadcasts with x."""
        return torch.from_numpy(values).to(x.device, dtype).reshape([-1] + [1] * (x.dim() - axis - 1))

    sources = torch.from_numpy(taps.sources).to(x.device)
    if taps.weights is None:
        y = x.index_select(axis, sources[0])
    else:
        exact = x if x.is_floating_point() else x.float()
        parts = [
            exact.index_select(axis, source) * along(weight, exact.dtype) for source, weight in zip(sources, taps.weights, strict=True)
        ]
        y = sum(parts[1:], parts[0]).to(x.dtype)
    return y if taps.outside is None else y.masked_fill(along(taps.outside, torch.bool), extrapolation)


def _listed(values: Tensor | None) -> list[Any]:
    return [] if values is None else values.tolist()
