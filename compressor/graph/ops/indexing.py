"""Taking elements by index."""

import torch
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import Flow, operator


def _from_start(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices)


@operator("Gather", flow=Flow.LOOKUP, weights=(0,), frozen=(1,))
def gather(node: Node) -> Run:
    attribute = node.int("axis", 0)

    def run(data: Tensor, indices: Tensor) -> Tensor:
        axis = attribute % data.dim()
        rows = _from_start(indices, data.shape[axis]).reshape(-1)
        return data.index_select(axis, rows).reshape(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])

    return run


@operator("GatherElements", frozen=(1,))
def gather_elements(node: Node) -> Run:
    axis = node.int("axis", 0)
    return lambda data, indices: data.gather(axis, _from_start(indices, data.shape[axis]).long())


@operator("GatherND", frozen=(1,))
def gather_nd(node: Node) -> Run:
    batch_dims = node.int("batch_dims", 0)

    def run(data: Tensor, indices: Tensor) -> Tensor:
        last = [_from_start(index, data.shape[batch_dims + axis]) for axis, index in enumerate(indices.unbind(-1))]
        rank = indices.dim() - 1
        batch = [
            torch.arange(data.shape[axis], device=indices.device).reshape([-1 if axis == other else 1 for other in range(rank)])
            for axis in range(batch_dims)
        ]
        return data[(*batch, *last)]

    return run
