"""Integers as rows of bits. No gradient passes."""

import torch
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import operator, plain_operators

plain_operators(
    __name__,
    {
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseNot": torch.bitwise_not,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
    },
    frozen=(0, 1),
)


@operator("BitShift", frozen=(0, 1))
def bit_shift(node: Node) -> Run:
    left = node.string("direction", "LEFT") == "LEFT"

    def run(x: Tensor, bits: Tensor) -> Tensor:
        return torch.bitwise_left_shift(x, bits) if left else torch.bitwise_right_shift(x, bits)

    return run
