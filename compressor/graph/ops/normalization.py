"""Normalisation and dropout. Statistics of a batch are used only while a model that was exported in training mode trains."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_batchedtensor  # whether a tensor is inside vmap; torch.func has no name for it

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import operator
from compressor.graph.tensors import compute_dtype


@operator("BatchNormalization", parameters=(1, 2), frozen=(3, 4), takes_mode=True)
def batch_normalization(node: Node) -> Run:
    epsilon, momentum = node.float("epsilon", 1e-5), node.float("momentum", 0.9)
    live = has_live_statistics(node)

    def run(training: bool, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        # Inside vmap there is one row only, and the statistics of many; and one number has no variance.
        if training and live and not is_batchedtensor(x) and x.numel() > x.shape[1]:
            return F.batch_norm(x, mean, var, scale, bias, training=True, momentum=1.0 - momentum, eps=epsilon)  # updates mean and var
        return F.batch_norm(x, mean, var, scale, bias, training=False, eps=epsilon)

    return run


def has_live_statistics(node: Node) -> bool:
    """Whether it is a batch normalisation of a file exported in training mode: it normalises by the batch, and learns its statistics."""
    if node.op_type != "BatchNormalization":
        return False
    return bool(node.int("training_mode", 0)) if node.opset >= 14 else any(node.outputs[1:])


@operator("Dropout", settings=(1, 2), takes_mode=True, multiple=True, steps=(1,))
def dropout(node: Node) -> Run:
    attribute = node.float("ratio", 0.5)
    with_mask = len(node.outputs) > 1 and node.outputs[1] != ""

    def run(training: bool, x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        mask = torch.ones_like(x, dtype=torch.bool) if with_mask else None
        if training and training_mode is not None and bool(training_mode):
            rate = attribute if ratio is None else float(ratio)
            mask = torch.rand_like(x) >= rate
            x = x * mask / (1.0 - rate) if rate < 1.0 else torch.zeros_like(x)
        return x if mask is None or not with_mask else (x, mask)

    return run


@operator("InstanceNormalization", parameters=(1, 2))
def instance_normalization(node: Node) -> Run:
    epsilon = node.float("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@operator("GroupNormalization", parameters=(1, 2))
def group_normalization(node: Node) -> Run:
    # From opset 21 on; the checker refuses the form of opset 18, whose scale had one element per group.
    epsilon, groups = node.float("epsilon", 1e-5), node.int("num_groups", 1)
    return lambda x, scale, bias: F.group_norm(x, groups, scale, bias, epsilon)


@operator("LayerNormalization", parameters=(1, 2))
def layer_normalization(node: Node) -> Run:
    epsilon, axis = node.float("epsilon", 1e-5), node.int("axis", -1)
    stash_type = compute_dtype(node.int("stash_type", 1), node.label)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = [x.shape[each] for each in _axes_from(axis, x)]
        normed = F.layer_norm(x.to(stash_type), shape, eps=epsilon).to(x.dtype) * scale
        return normed if bias is None else normed + bias

    return run


def _axes_from(axis: int, x: Tensor) -> tuple[int, ...]:
    if not -x.dim() <= axis < x.dim():
        raise ValueError(f"axis {axis} of a tensor of {x.dim()} dimensions")
    return tuple(range(axis % x.dim(), x.dim()))


@operator("RMSNormalization", parameters=(1,))
def rms_normalization(node: Node) -> Run:
    epsilon, axis = node.float("epsilon", 1e-5), node.int("axis", -1)
    stash_type = compute_dtype(node.int("stash_type", 1), node.label)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = _axes_from(axis, x)
        exact = x.to(stash_type)
        return (exact * torch.rsqrt((exact * exact).mean(axes, keepdim=True) + epsilon)).to(x.dtype) * scale

    return run


@operator("LRN")
def local_response_normalization(node: Node) -> Run:
    size = node.int("size", 1)
    alpha, beta, bias = node.float("alpha", 1e-4), node.float("beta", 0.75), node.float("bias", 1.0)

    def run(x: Tensor) -> Tensor:
        squares = F.pad((x * x).flatten(2).unsqueeze(1), [0, 0, (size - 1) // 2, size // 2])
        sums = F.avg_pool2d(squares, [size, 1], stride=1, divisor_override=1).reshape(x.shape)
        return x / (bias + alpha / size * sums) ** beta

    return run


@operator("LpNormalization")
def lp_normalization(node: Node) -> Run:
    axis, p = node.int("axis", -1), node.int("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, ord=p, dim=axis, keepdim=True)
        return torch.where(norm == 0, torch.zeros_like(x), x / norm)

    return run


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node) -> Run:
    axes = node.ints("axes") or [0, 2, 3]

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / ((centred * centred).mean(axes, keepdim=True).sqrt() + 1e-9)

    return run
