"""Reading an image or a volume at given points."""

import torch.nn.functional as F
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import check_elements, operator

# The names of opset 16, and those from opset 20 on.
_MODES = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic", "cubic": "bicubic"}


@operator("GridSample")
def grid_sample(node: Node) -> Run:
    mode, padding = node.string("mode", "linear"), node.string("padding_mode", "zeros")
    align_corners = bool(node.int("align_corners", 0))
    if mode not in _MODES:
        raise node.unsupported(f"mode {mode!r}")

    def run(x: Tensor, grid: Tensor) -> Tensor:
        rank = x.dim() - 2
        if rank not in (2, 3) or (rank == 3 and _MODES[mode] == "bicubic"):
            raise node.unsupported(f"mode {mode!r} over {rank} spatial dimensions")
        check_elements(node, [*x.shape[:2], *grid.shape[1:-1]])
        return F.grid_sample(x, grid, _MODES[mode], padding, align_corners)

    return run


@operator("AffineGrid", settings=(1,))
def affine_grid(node: Node) -> Run:
    align_corners = bool(node.int("align_corners", 0))

    def run(theta: Tensor, size: Tensor) -> Tensor:
        sizes: list[int] = size.tolist()
        check_elements(node, [sizes[0], *sizes[2:], len(sizes) - 1])  # with the coordinate that torch adds
        return F.affine_grid(theta, sizes, align_corners)

    return run
