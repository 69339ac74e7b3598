"""Operators that are linear in their weight: Conv, ConvTranspose, Gemm, MatMul."""

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.gaussian import MANY_POSITIONS, Positions, Run
from compressor.graph.node import Node
from compressor.graph.ops.table import Flow, operator
from compressor.graph.ops.window import Window

_CONV = (F.conv1d, F.conv2d, F.conv3d)
_CONV_TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def _conv_positions(node: Node) -> Positions:
    window = Window(node)
    return lambda x, w: x.shape[0] * prod(window.resolve(x.shape[2:], w.shape[2:]).output)


def _conv_transpose_positions(node: Node) -> Positions:
    del node  # every element of the input meets every element of the filter
    return lambda x, w: x.shape[0] * x.shape[2:].numel()  # noqa: ARG005


@operator("Conv", flow=Flow.CONVOLUTION, weights=(1,), parameters=(2,), positions=_conv_positions)
def conv(node: Node) -> Run:
    window = Window(node)
    group = node.int("group", 1)

    def run(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = spatial_rank(node, w)
        at = window.resolve(x.shape[2:], w.shape[2:])
        if rank == 2 and x.device.type == "cpu":
            x = _channels_last(x) if x.shape[0] * prod(at.output) >= MANY_POSITIONS else x.contiguous()
        symmetric = at.begin == at.end
        if not symmetric:
            x = F.pad(x, at.torch_pads())
        return _CONV[rank - 1](x, w, bias, at.strides, at.begin if symmetric else [0] * rank, at.dilations, group)

    return run


@operator("ConvTranspose", flow=Flow.CONVOLUTION, weights=(1,), parameters=(2,), positions=_conv_transpose_positions)
def conv_transpose(node: Node) -> Run:
    group = node.int("group", 1)
    auto_pad = node.string("auto_pad", "NOTSET")
    strides, dilations, pads = node.ints("strides"), node.ints("dilations"), node.ints("pads")
    output_padding, output_shape = node.ints("output_padding"), node.ints("output_shape")

    def run(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = spatial_rank(node, w)
        stride, dilation = strides or [1] * rank, dilations or [1] * rank
        extra = output_padding or [0] * rank
        full = [s * (n - 1) + o + (k - 1) * d + 1 for s, n, o, k, d in zip(stride, x.shape[2:], extra, w.shape[2:], dilation, strict=True)]
        wanted = output_shape
        if wanted is None and auto_pad.startswith("SAME"):
            # A kernel shorter than its stride gives less; ONNX Runtime does not fill that up.
            wanted = [min(n * s, f) for n, s, f in zip(x.shape[2:], stride, full, strict=True)]
        begin, end = (pads or [0] * 2 * rank)[:rank], (pads or [0] * 2 * rank)[rank:]
        if wanted is not None:
            total = [f - size for f, size in zip(full, wanted[-rank:], strict=True)]
            small = [t // 2 for t in total]
            large = [t - s for t, s in zip(total, small, strict=True)]
            begin, end = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        if begin == end and min(begin) >= 0:
            return _CONV_TRANSPOSE[rank - 1](x, w, bias, stride, begin, extra, group, dilation)
        y = _CONV_TRANSPOSE[rank - 1](x, w, bias, stride, [0] * rank, extra, group, dilation)
        return F.pad(y, [-cut for axis in reversed(range(rank)) for cut in (begin[axis], end[axis])])

    return run


def _gemm(node: Node, alpha: float, beta: float) -> Callable[..., Tensor]:
    transpose_a, transpose_b = bool(node.int("transA", 0)), bool(node.int("transB", 0))

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.t() if transpose_a else a
        b = b.t() if transpose_b else b
        if c is not None:
            return torch.addmm(c, a, b, beta=beta, alpha=alpha)
        return a @ b if alpha == 1.0 else alpha * (a @ b)

    return run


def _gemm_variance(node: Node) -> Run:
    return _gemm(node, alpha=node.float("alpha", 1.0) ** 2, beta=0.0)


@operator("Gemm", flow=Flow.LINEAR, weights=(0, 1), parameters=(2,), variance=_gemm_variance)
def gemm(node: Node) -> Run:
    return _gemm(node, alpha=node.float("alpha", 1.0), beta=node.float("beta", 1.0))


@operator("MatMul", flow=Flow.LINEAR, weights=(0, 1))
def matmul(node: Node) -> Run:
    del node  # no attributes

    def run(a: Tensor, b: Tensor, bias: None = None) -> Tensor:
        del bias  # the common signature of linear operators
        return torch.matmul(a, b)

    return run


def _channels_last(x: Tensor) -> Tensor:
    """[N, C, H, W] in the order of memory that convolution and pooling on the CPU are fastest with; vmap takes no torch.channels_last."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def spatial_rank(node: Node, weight: Tensor) -> int:
    """1, 2 or 3: the number of spatial dimensions of a convolution.

    Raises: UnsupportedModel for any other number.
    """
    rank = weight.dim() - 2
    if not 1 <= rank <= 3:
        raise node.unsupported(f"{rank} spatial dimensions; 1 to 3 are supported")
    return rank
