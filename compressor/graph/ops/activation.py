"""Elementwise activations, and the softmax family."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import operator, plain_operators

plain_operators(
    __name__,
    {
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "Softplus": lambda x: F.softplus(x, threshold=50.0),
        "Softsign": F.softsign,
        "HardSwish": F.hardswish,
        "Mish": F.mish,
    },
)


@operator("LeakyRelu")
def leaky_relu(node: Node) -> Run:
    alpha = node.float("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


@operator("PRelu", parameters=(1,))
def prelu(node: Node) -> Run:
    del node
    # Not F.prelu, whose slope is one number or one per channel: ONNX broadcasts any shape.
    return lambda x, slope: torch.where(x < 0, slope * x, x)


@operator("Elu")
def elu(node: Node) -> Run:
    alpha = node.float("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@operator("Celu")
def celu(node: Node) -> Run:
    alpha = node.float("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@operator("Selu")
def selu(node: Node) -> Run:
    alpha = node.float("alpha", 1.67326319217681884765625)
    gamma = node.float("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@operator("HardSigmoid")
def hard_sigmoid(node: Node) -> Run:
    alpha, beta = node.float("alpha", 0.2), node.float("beta", 0.5)
    return lambda x: (alpha * x + beta).clamp(0.0, 1.0)


@operator("ThresholdedRelu")
def thresholded_relu(node: Node) -> Run:
    alpha = node.float("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@operator("Gelu")
def gelu(node: Node) -> Run:
    approximate = node.string("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@operator("Shrink")
def shrink(node: Node) -> Run:
    bias, threshold = node.float("bias", 0.0), node.float("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        moved = torch.where(x < -threshold, x + bias, torch.where(x > threshold, x - bias, torch.zeros_like(x)))
        return moved.to(x.dtype)

    return run


def softmax_axis(node: Node) -> tuple[int, bool]:
    """The axis of a softmax, and whether all axes from it on count as one (before opset 13)."""
    coerced = node.opset < 13
    return node.int("axis", 1 if coerced else -1), coerced


def _along_axis(node: Node, function: Run) -> Run:
    axis, coerced = softmax_axis(node)
    if not coerced:
        return lambda x: function(x, axis)

    def run(x: Tensor) -> Tensor:
        split = axis if axis >= 0 else axis + x.dim()
        return function(x.flatten(split), split).reshape(x.shape) if split < x.dim() else torch.ones_like(x)

    return run


@operator("Softmax")
def softmax(node: Node) -> Run:
    return _along_axis(node, torch.softmax)


@operator("LogSoftmax")
def log_softmax(node: Node) -> Run:
    return _along_axis(node, torch.log_softmax)


@operator("Hardmax", frozen=(0,))
def hardmax(node: Node) -> Run:
    def first_maximum(x: Tensor, axis: int) -> Tensor:
        return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)

    return _along_axis(node, first_maximum)
