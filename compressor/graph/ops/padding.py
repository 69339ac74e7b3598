"""Pad in all its modes, and CenterCropPad."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import Flow, check_elements, operator


@operator("Pad", settings=(1, 2, 3))
def pad(node: Node) -> Run:
    mode = node.string("mode", "constant")

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        flat: list[int] = pads.tolist()
        chosen = [axis % x.dim() for axis in (range(x.dim()) if axes is None else axes.tolist())]
        begin = dict(zip(chosen, flat[: len(chosen)], strict=True))
        end = dict(zip(chosen, flat[len(chosen) :], strict=True))
        check_elements(node, [size + begin.get(axis, 0) + end.get(axis, 0) for axis, size in enumerate(x.shape)])
        if mode == "constant":
            both = [side.get(axis, 0) for axis in reversed(range(x.dim())) for side in (begin, end)]
            return F.pad(x, both, value=0 if value is None else value.item())
        for axis in chosen:
            if begin[axis] or end[axis]:
                taken = torch.arange(-begin[axis], x.shape[axis] + end[axis], device=x.device)
                x = x.index_select(axis, _source(taken, x.shape[axis], mode))
        return x

    return run


@operator("CenterCropPad", flow=Flow.LAYOUT, settings=(1,))
def center_crop_pad(node: Node) -> Run:
    attribute = node.ints("axes")

    def run(x: Tensor, shape: Tensor) -> Tensor:
        wanted = list(x.shape)
        for axis, size in zip(attribute or range(x.dim()), shape.tolist(), strict=True):
            wanted[axis] = size
        check_elements(node, wanted)
        pads = []
        for before, after in zip(reversed(x.shape), reversed(wanted), strict=True):
            # Cut or padded on both sides alike, with the odd element at the end.
            begin = (after - before) // 2 if after > before else -((before - after) // 2)
            pads += [begin, after - before - begin]
        return F.pad(x, pads)

    return run


def _source(position: Tensor, size: int, mode: str) -> Tensor:
    """Where the element at `position`, outside of [0, size) in the padding, is copied from."""
    if mode == "edge":
        return position.clamp(0, size - 1)
    if mode == "wrap":
        return position.remainder(size)
    period = max(2 * (size - 1), 1)
    folded = position.remainder(period)
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(position)
