"""The fine-tuned tensors of every point of the curve, kept as positions and values of what is not zero."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.search.network import Tensors

_BITS_PER_POSITION = 32


@dataclass(frozen=True)
class SparseTensor:
    """Nonzeros in order. `positions` are flat and int32; or, of 1 in 32 or denser tensors, bytes with a bit for every element."""

    positions: Tensor
    values: Tensor


def to_sparse(tensor: Tensor) -> SparseTensor:
    """Args: any shape, at most 2^31 elements."""
    flat = tensor.detach().flatten().cpu()
    kept = flat != 0
    if int(kept.sum()) * _BITS_PER_POSITION < len(flat):
        return SparseTensor(kept.nonzero().flatten().to(torch.int32), flat[kept])
    padded = torch.nn.functional.pad(kept, (0, -len(flat) % 8)).view(-1, 8)
    bits = padded.to(torch.uint8) << torch.arange(8, dtype=torch.uint8)
    return SparseTensor(bits.sum(1, dtype=torch.uint8), flat[kept])


def to_dense(sparse: SparseTensor, like: Tensor) -> Tensor:
    """A tensor of the shape, dtype and device of `like`."""
    flat = torch.zeros(like.numel(), dtype=like.dtype)
    if sparse.positions.dtype == torch.uint8:
        kept = (sparse.positions[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).bool().flatten()[: like.numel()]
    else:
        kept = sparse.positions.long()
    flat[kept] = sparse.values.to(like.dtype)
    return flat.view(like.shape).to(like.device)


class Points:
    """The tensors of each point, in the order of the curve; names are the client's, so a checkpoint has them by position."""

    def __init__(self) -> None:
        self._points: list[dict[str, SparseTensor]] = []

    def append(self, tensors: Mapping[str, Tensor]) -> None:
        self._points.append({name: to_sparse(tensor) for name, tensor in tensors.items()})

    def tensors(self, index: int, like: Mapping[str, Tensor]) -> Tensors:
        return {name: to_dense(self._points[index][name], tensor) for name, tensor in like.items()}

    def to_checkpoint(self) -> Iterator[tuple[str, Tensor]]:
        for number, point in enumerate(self._points):
            for index, sparse in enumerate(point.values()):
                yield f"point/{number}/{index}/positions", sparse.positions
                yield f"point/{number}/{index}/values", sparse.values

    def restore(self, checkpoint: Mapping[str, Tensor], num_points: int, names: Mapping[str, Tensor]) -> None:
        self._points = [
            {
                name: SparseTensor(
                    checkpoint[f"point/{number}/{index}/positions"].cpu(), checkpoint[f"point/{number}/{index}/values"].cpu()
                )
                for index, name in enumerate(names)
            }
            for number in range(num_points)
        ]
