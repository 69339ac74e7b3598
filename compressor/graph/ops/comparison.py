"""Comparisons, logic and choice. Their operands steer, they do not learn: no gradient passes a comparison."""

import torch

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import operator, plain_operators

plain_operators(
    __name__,
    {
        "Equal": torch.eq,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
        "Not": torch.logical_not,
        "IsNaN": torch.isnan,
    },
    frozen=(0, 1),
)

plain_operators(__name__, {"Where": torch.where}, frozen=(0,))


@operator("IsInf", frozen=(0,))
def is_inf(node: Node) -> Run:
    positive, negative = bool(node.int("detect_positive", 1)), bool(node.int("detect_negative", 1))
    return lambda x: (torch.isposinf(x) & positive) | (torch.isneginf(x) & negative)
