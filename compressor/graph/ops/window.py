"""Sliding windows: strides, dilations and padding of convolution and pooling, with auto_pad and ceil_mode resolved for a given size."""

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.graph.node import Node


@dataclass(frozen=True)
class ResolvedWindow:
    """A window over an input of known size; lists have one item for each spatial axis."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]
    output: list[int]

    def torch_pads(self) -> list[int]:
        """begin and end as F.pad takes them: last axis first."""
        return [pad for axis in reversed(range(len(self.begin))) for pad in (self.begin[axis], self.end[axis])]

    def extent(self, axis: int) -> int:
        """Elements that the kernel spans on the axis."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1


class Window:
    """The window attributes of one node."""

    def __init__(self, node: Node) -> None:
        self.strides = node.ints("strides")
        self.dilations = node.ints("dilations")
        self.pads = node.ints("pads")
        self.auto_pad = node.string("auto_pad", "NOTSET")
        self.ceil_mode = bool(node.int("ceil_mode", 0))
        self._cache: dict[tuple[Sequence[int], Sequence[int]], ResolvedWindow] = {}

    def resolve(self, size: Sequence[int], kernel: Sequence[int]) -> ResolvedWindow:
        """The window over spatial dimensions `size`; kept, since a training run asks for the same size every step."""
        key = (tuple(size), tuple(kernel))
        if key not in self._cache:
            self._cache = {key: self._resolve(list(size), list(kernel))}
        return self._cache[key]

    def _resolve(self, size: list[int], kernel: list[int]) -> ResolvedWindow:
        axes = range(len(size))
        strides = self.strides or [1] * len(size)
        dilations = self.dilations or [1] * len(size)
        extent = [(kernel[axis] - 1) * dilations[axis] + 1 for axis in axes]
        if self.auto_pad.startswith("SAME"):
            output = [-(-size[axis] // strides[axis]) for axis in axes]
            total = [max((output[axis] - 1) * strides[axis] + extent[axis] - size[axis], 0) for axis in axes]
            smaller, larger = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
            begin, end = (smaller, larger) if self.auto_pad == "SAME_UPPER" else (larger, smaller)
            return ResolvedWindow(kernel, strides, dilations, begin, end, output)
        pads = [0] * 2 * len(size) if self.pads is None or self.auto_pad == "VALID" else self.pads
        begin, end = pads[: len(size)], pads[len(size) :]
        output = [self._windows(size[i] + begin[i], end[i], extent[i], strides[i]) for i in axes]
        return ResolvedWindow(kernel, strides, dilations, begin, end, output)

    def _windows(self, size: int, end: int, extent: int, stride: int) -> int:
        """Windows on one axis of `size` elements, begin padding included, followed by `end` elements of padding."""
        free = size + end - extent
        if not self.ceil_mode:
            return free // stride + 1
        windows = -(-free // stride) + 1
        # A window that would start in the end padding is left out, as in PyTorch and in ONNX Runtime.
        return windows - 1 if (windows - 1) * stride >= size else windows
