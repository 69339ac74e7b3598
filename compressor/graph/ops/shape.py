"""Shapes, and tensors made out of shapes. Shapes are int64 on the CPU, wherever the data are."""

import math

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import check_elements, operator, plain_operators
from compressor.graph.tensors import compute_dtype, to_torch

plain_operators(__name__, {"Size": lambda x: torch.tensor(x.numel())}, settings=(0,))


@operator("Shape", settings=(0,))
def shape(node: Node) -> Run:
    start, end = node.int("start", 0), node.attributes.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


@operator("ConstantOfShape", settings=(0,))
def constant_of_shape(node: Node) -> Run:
    proto = node.tensor("value")
    value = torch.zeros(1) if proto is None else to_torch(numpy_helper.to_array(proto), proto.data_type, node.label)
    fill, dtype = value.item(), value.dtype

    def run(sizes: Tensor) -> Tensor:
        wanted: list[int] = sizes.tolist()
        check_elements(node, wanted)
        return torch.full(wanted, fill, dtype=dtype)

    return run


@operator("EyeLike", settings=(0,))
def eye_like(node: Node) -> Run:
    kind, diagonal = node.attributes.get("dtype"), node.int("k", 0)
    dtype = None if kind is None else compute_dtype(kind, node.label)

    def run(x: Tensor) -> Tensor:
        check_elements(node, x.shape)
        return torch.ones(x.shape).triu(diagonal).tril(diagonal).to(x.dtype if dtype is None else dtype)

    return run


@operator("Expand", settings=(1,))
def expand(node: Node) -> Run:
    def run(x: Tensor, sizes: Tensor) -> Tensor:
        wanted = np.broadcast_shapes(x.shape, tuple(sizes.tolist()))
        check_elements(node, wanted)
        return x.expand(wanted)

    return run


@operator("Tile", settings=(1,))
def tile(node: Node) -> Run:
    def run(x: Tensor, repeats: Tensor) -> Tensor:
        times: list[int] = repeats.tolist()
        check_elements(node, [size * count for size, count in zip(x.shape, times, strict=True)])
        return x.repeat(times)

    return run


@operator("Range", settings=(0, 1, 2))
def range_(node: Node) -> Run:
    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        first, last, step = start.item(), limit.item(), delta.item()
        count = max(math.ceil((last - first) / step), 0)
        check_elements(node, [count])
        return first + step * torch.arange(count, dtype=start.dtype)

    return run
