"""Taking elements by index."""

import torch
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import Flow, check_elements, operator, plain_operators


def from_start(indices: Tensor, size: int) -> Tensor:
    """Indices of which negative ones count from the end."""
    return torch.where(indices < 0, indices + size, indices)


@operator("Gather", flow=Flow.LOOKUP, weights=(0,), frozen=(1,))
def gather(node: Node) -> Run:
    attribute = node.int("axis", 0)

    def run(data: Tensor, indices: Tensor) -> Tensor:
        axis = attribute % data.dim()
        # A constant of no dimensions stays on the CPU, wherever the data are.
        rows = from_start(indices, data.shape[axis]).reshape(-1).to(data.device)
        shape = data.shape[:axis] + indices.shape + data.shape[axis + 1 :]
        check_elements(node, shape)
        return data.index_select(axis, rows).reshape(shape)

    return run


@operator("GatherElements", frozen=(1,))
def gather_elements(node: Node) -> Run:
    axis = node.int("axis", 0)
    return lambda data, indices: data.gather(axis, from_start(indices, data.shape[axis]).long())


@operator("GatherND", frozen=(1,))
def gather_nd(node: Node) -> Run:
    batch_dims = node.int("batch_dims", 0)

    def run(data: Tensor, indices: Tensor) -> Tensor:
        last = [from_start(index, data.shape[batch_dims + axis]) for axis, index in enumerate(indices.unbind(-1))]
        rank = indices.dim() - 1
        check_elements(node, indices.shape[:-1] + data.shape[batch_dims + len(last) :])
        batch = [
            torch.arange(data.shape[axis], device=indices.device).reshape([-1 if axis == other else 1 for other in range(rank)])
            for axis in range(batch_dims)
        ]
        return data[(*batch, *last)]

    return run


@operator("TopK", settings=(1,), multiple=True, steps=(1,))
def top_k(node: Node) -> Run:
    axis, largest = node.int("axis", -1), bool(node.int("largest", 1))

    def run(x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        # Not torch.topk: of equal values ONNX takes those that come first.
        values, places = x.sort(dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, int(count)), places.narrow(axis, 0, int(count))

    return run


@operator("OneHot", settings=(1, 2), frozen=(0,))
def one_hot(node: Node) -> Run:
    attribute = node.int("axis", -1)

    def run(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        classes, axis = int(depth), attribute % (indices.dim() + 1)
        check_elements(node, [*indices.shape, classes])
        places = torch.arange(classes, device=indices.device).reshape([-1] + [1] * (indices.dim() - axis))
        off, on = values.unbind()
        # An index outside of the classes, on either side, gives a row of `off`.
        return torch.where(from_start(indices.long(), classes).unsqueeze(axis) == places, on, off)

    return run


plain_operators(__name__, {"NonZero": lambda x: x.nonzero().t()}, settings=(0,))  # the size of the result depends on what is in x


@operator("Compress", settings=(1,))
def compress(node: Node) -> Run:
    """The size of the result depends on the condition, which may be data."""
    axis = node.attributes.get("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        taken = condition.nonzero().squeeze(1).to(x.device)
        return x.flatten().index_select(0, taken) if axis is None else x.index_select(axis, taken)

    return run
