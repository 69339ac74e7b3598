"""Sequences of tensors, which torch.onnx writes for chunk and stack when it does not optimise. A sequence is a Python list here."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import Flow, check_parts, operator


@operator("SplitToSequence", flow=Flow.LAYOUT, settings=(1,))
def split_to_sequence(node: Node) -> Run:
    axis, keep = node.int("axis", 0), bool(node.int("keepdims", 1))

    def run(x: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        if lengths is None or lengths.dim() == 0:
            check_parts(node, x.shape[axis] if lengths is None else -(-x.shape[axis] // int(lengths)))
        if lengths is None:
            parts = torch.split_with_sizes(x, [1] * x.shape[axis], dim=axis)
            return [part if keep else part.squeeze(axis) for part in parts]
        if lengths.dim() > 0:
            return list(torch.split_with_sizes(x, lengths.tolist(), dim=axis))
        return list(x.tensor_split(list(range(int(lengths), x.shape[axis], int(lengths))), dim=axis))

    return run


@operator("SequenceAt", flow=Flow.LAYOUT, settings=(1,))
def sequence_at(node: Node) -> Run:
    del node
    return lambda sequence, position: sequence[int(position)]


@operator("SequenceConstruct")
def sequence_construct(node: Node) -> Run:
    del node
    return lambda *tensors: list(tensors)


@operator("ConcatFromSequence")
def concat_from_sequence(node: Node) -> Run:
    axis, stack = node.int("axis", 0), bool(node.int("new_axis", 0))

    def run(sequence: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(sequence), axis) if stack else torch.cat(list(sequence), axis)

    return run
