"""Col2Im: blocks that overlap, added up to an image of any number of dimensions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import check_elements, operator


@operator("Col2Im", settings=(1, 2))
def col2im(node: Node) -> Run:
    dilations, pads, strides = node.ints("dilations"), node.ints("pads"), node.ints("strides")

    def run(x: Tensor, image_shape: Tensor, block_shape: Tensor) -> Tensor:
        """`x`: (batch, channels * elements of a block, blocks)."""
        image: list[int] = image_shape.tolist()
        block: list[int] = block_shape.tolist()
        rank = len(image)
        dilation, stride = dilations or [1] * rank, strides or [1] * rank
        begin, end = (pads or [0] * 2 * rank)[:rank], (pads or [0] * 2 * rank)[rank:]
        padded = [size + before + after for size, before, after in zip(image, begin, end, strict=True)]
        blocks = [(n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(padded, block, dilation, stride, strict=True)]
        channels = x.shape[1] // math.prod(block)
        if x.shape[1:] != (channels * math.prod(block), math.prod(blocks)):
            raise ValueError(f"{math.prod(blocks)} blocks of {math.prod(block)} elements out of a tensor of {tuple(x.shape)}")
        check_elements(node, [x.shape[0], channels, *padded])
        places = torch.zeros(1, 1, dtype=torch.int64)
        for axis in range(rank):
            along = torch.arange(block[axis])[:, None] * dilation[axis] + torch.arange(blocks[axis]) * stride[axis]
            # (elements of a block, blocks) over the axes so far, times those of this axis.
            places = (places[:, None, :, None] * padded[axis] + along[None, :, None, :]).reshape(len(places) * block[axis], -1)
        flat = x.new_zeros(x.shape[0], channels, math.prod(padded))
        added = flat.index_add(2, places.flatten().to(x.device), x.reshape(x.shape[0], channels, -1))
        y = added.reshape(x.shape[0], channels, *padded)
        return F.pad(y, [-cut for axis in reversed(range(rank)) for cut in (begin[axis], end[axis])])

    return run
