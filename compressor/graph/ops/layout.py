"""Operators that move elements without mixing them: a Gaussian weight passes through by mean and variance alike."""

from typing import Any

import torch
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import Flow, operator
from compressor.graph.tensors import FLOAT_TYPES, compute_dtype


@operator("Identity", flow=Flow.LAYOUT)
def identity(node: Node) -> Run:
    del node
    return lambda x: x


@operator("Cast", flow=Flow.LAYOUT)
def cast(node: Node) -> Run:
    if node.int("saturate", 1) != 1:  # for float8 only; ONNX Runtime gives whatever is in the memory otherwise
        raise node.unsupported(f"saturate {node.int('saturate', 1)}")
    dtype = compute_dtype(node.int("to", 0), node.label)
    return lambda x: x.to(dtype)


def casts_to_integers(node: Node) -> bool:
    """Whether no gradient and no fraction passes."""
    return node.op_type == "Cast" and node.int("to", 0) not in FLOAT_TYPES


@operator("CastLike", flow=Flow.LAYOUT, settings=(1,))
def cast_like(node: Node) -> Run:
    del node
    return lambda x, like: x.to(like.dtype)


@operator("Transpose", flow=Flow.LAYOUT)
def transpose(node: Node) -> Run:
    perm = node.ints("perm")
    return lambda x: x.permute(perm if perm is not None else tuple(reversed(range(x.dim()))))


@operator("Reshape", flow=Flow.LAYOUT, settings=(1,))
def reshape(node: Node) -> Run:
    allow_zero = bool(node.int("allowzero", 0))

    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes: list[int] = shape.tolist()
        if not allow_zero:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


@operator("Flatten", flow=Flow.LAYOUT)
def flatten(node: Node) -> Run:
    axis = node.int("axis", 1)

    def run(x: Tensor) -> Tensor:
        split = axis if axis >= 0 else axis + x.dim()
        rows = x.shape[:split].numel()
        return x.reshape(rows, x.shape[split:].numel())

    return run


@operator("Squeeze", flow=Flow.LAYOUT, settings=(1,))
def squeeze(node: Node) -> Run:
    attribute = node.ints("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = attribute if axes is None else axes.tolist()
        return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))

    return run


@operator("Unsqueeze", flow=Flow.LAYOUT, settings=(1,))
def unsqueeze(node: Node) -> Run:
    attribute = node.ints("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen: list[int] = (attribute or []) if axes is None else axes.tolist()
        rank = x.dim() + len(chosen)
        for axis in sorted(axis % rank for axis in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


@operator("Concat", flow=Flow.LAYOUT)
def concat(node: Node) -> Run:
    axis = node.int("axis", 0)
    return lambda *parts: torch.cat(parts, dim=axis)


@operator("Split", flow=Flow.LAYOUT, settings=(1,), multiple=True)
def split(node: Node) -> Run:
    axis, attribute, parts = node.int("axis", 0), node.ints("split"), node.int("num_outputs", len(node.outputs))
    if parts != len(node.outputs):
        raise ValueError(f"{parts} parts for {len(node.outputs)} outputs")

    def run(x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        sizes = attribute if lengths is None else lengths.tolist()
        if sizes is None:
            whole = x.shape[axis]
            longest = -(-whole // parts)
            sizes = [max(min(longest, whole - part * longest), 0) for part in range(parts)]
        return tuple(torch.split_with_sizes(x, sizes, dim=axis))

    return run


@operator("Slice", flow=Flow.LAYOUT, settings=(1, 2, 3, 4))
def slice_(node: Node) -> Run:
    del node

    def run(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        first: list[int] = starts.tolist()
        chosen: list[int] = list(range(len(first))) if axes is None else axes.tolist()
        strides: list[int] = [1] * len(first) if steps is None else steps.tolist()
        if len(chosen) > x.dim():
            raise ValueError(f"{len(chosen)} axes of a tensor of {x.dim()} dimensions")
        for axis, start, end, step in zip(chosen, first, ends.tolist(), strides, strict=True):
            x = _slice_axis(x, axis % x.dim(), start, end, step)
        return x

    return run


def _slice_axis(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    # Python's own clamping is ONNX's: a very negative end of a backward slice includes element 0.
    start, end, step = slice(start, end, step).indices(x.shape[axis])
    if step > 0:
        index: list[Any] = [slice(None)] * axis
        return x[(*index, slice(start, max(start, end), step))]
    taken = torch.arange(start, min(start, end), step, device=x.device)
    return x.index_select(axis, taken)


@operator("DepthToSpace", flow=Flow.LAYOUT)
def depth_to_space(node: Node) -> Run:
    block, column_first = node.int("blocksize", 1), node.string("mode", "DCR") == "DCR"

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        depth = c // (block * block)
        if column_first:
            blocks = x.reshape(n, block, block, depth, h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            blocks = x.reshape(n, depth, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        return blocks.reshape(n, depth, h * block, w * block)

    return run


@operator("SpaceToDepth", flow=Flow.LAYOUT)
def space_to_depth(node: Node) -> Run:
    block = node.int("blocksize", 1)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * block * block, h // block, w // block)

    return run


@operator("Trilu", flow=Flow.LAYOUT, settings=(1,))
def trilu(node: Node) -> Run:
    keep = torch.triu if node.int("upper", 1) else torch.tril
    return lambda x, diagonal=None: keep(x, 0 if diagonal is None else int(diagonal))


@operator("ReverseSequence", flow=Flow.LAYOUT, frozen=(1,))
def reverse_sequence(node: Node) -> Run:
    batch_axis, time_axis = node.int("batch_axis", 1), node.int("time_axis", 0)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        moved = x.movedim((time_axis, batch_axis), (0, 1))
        time = torch.arange(len(moved), device=x.device)[:, None]
        sources = torch.where(time < lengths, lengths - 1 - time, time)
        places = sources.reshape(*sources.shape, *[1] * (x.dim() - 2)).expand(moved.shape)
        return moved.gather(0, places).movedim((0, 1), (time_axis, batch_axis))

    return run
