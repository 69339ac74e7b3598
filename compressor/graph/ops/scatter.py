"""Writing elements by index. Both the tensor that is written into and what is written may learn."""

import math

import torch
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.indexing import from_start
from compressor.graph.ops.table import operator

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", frozen=(1,))
def scatter_elements(node: Node) -> Run:
    axis, reduction = node.int("axis", 0), node.string("reduction", "none")

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        return _scatter(data, axis, from_start(indices, data.shape[axis]).long(), updates, reduction)

    return run


@operator("ScatterND", frozen=(1,))
def scatter_nd(node: Node) -> Run:
    reduction = node.string("reduction", "none")

    def run(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        """The last axis of `indices` names a row: the data are a matrix of rows here, and the updates rows too."""
        depth = indices.shape[-1]
        rows = torch.zeros_like(indices[..., 0])
        for axis, index in enumerate(indices.unbind(-1)):
            rows = rows * data.shape[axis] + from_start(index, data.shape[axis])
        width = data.shape[depth:].numel()
        matrix = data.reshape(math.prod(data.shape[:depth]), width)
        places = rows.reshape(-1, 1).expand(-1, width).long()
        return _scatter(matrix, 0, places, updates.reshape(-1, width), reduction).reshape(data.shape)

    return run


def _scatter(data: Tensor, axis: int, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return data.scatter(axis, indices, updates)
    return data.scatter_reduce(axis, indices, updates, _REDUCTIONS[reduction])
