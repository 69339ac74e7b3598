"""`curve.safetensors`: the fine-tuned tensors of every point of the curve, of which any can be exported. The layout, format_version 1:

A safetensors file. Its metadata has "bayespress_curve", the JSON form of `Curve`. Tensor i of point p, by their order there, lies in
  point/<p>/<i>/positions  of the nonzeros, flat, row-major: int32 and increasing; or, of tensors in which 1 in 32 or more is kept, bytes
                           with a bit for every element, the lowest first
  point/<p>/<i>/values     the nonzeros in this order, in the type in which they were trained
  point/<p>/<i>/log_sigma2  of a variational weight: the logarithms of the posterior's variances of these, as they were when the point was
                           cut, in float16
`digests` has of each point the first 32 hexadecimal digits of the SHA-256 of the JSON text, which has no spaces, with no digests ([]) and,
behind it, the bytes of the point's parts in the order above.
"""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressor.artifacts.digest import digest_of
from compressor.atomic import replacing
from compressor.errors import ArtifactMismatch, InvalidArtifact
from compressor.report import CurvePoint, MetricName

# One key alone: safetensors writes the keys of its metadata in random order, and the same tensors shall give the same bytes.
METADATA_KEY = "bayespress_curve"
_BITS_PER_POSITION = 32


@dataclass(frozen=True)
class SparseTensor:
    """Nonzeros in order. `positions` are flat and int32; or, of 1 in 32 or denser tensors, bytes with a bit for every element.

    `log_sigma2`, in float16, is of the posterior of these, where the tensor has one.
    """

    positions: Tensor
    values: Tensor
    log_sigma2: Tensor | None = None


class TensorSpec(BaseModel):
    """A tensor as it was trained, by its ONNX name; `dtype` is torch's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    shape: tuple[int, ...] = Field(max_length=64)
    dtype: str


class Curve(BaseModel):
    """What the file says of its points.

    `architecture`, `image_size` and `output` are the options of the run that decide what its tensors are; `numel` counts the weights, as
    the report does; `dense_metric` is that of the uploaded model on validation, `fixed_nnz`
    counts the nonzeros of tensors that are never trained, which no point holds. `write` adds the digests.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format_version: Literal[1] = 1
    model_sha256: str
    architecture: str | None
    image_size: int | None
    output: str | None
    numel: int = Field(ge=1)
    metric: MetricName
    dense_metric: float
    fixed_nnz: int
    tensors: tuple[TensorSpec, ...]
    points: tuple[CurvePoint, ...] = Field(min_length=1)
    digests: tuple[str, ...] = ()

    def digest(self, parts: Iterable[SparseTensor]) -> str:
        """Of a point with these tensors."""
        text = self.model_copy(update={"digests": ()}).model_dump_json()
        tensors = (tensor for sparse in parts for tensor in (sparse.positions, sparse.values, sparse.log_sigma2))
        # numpy has no bfloat16
        return digest_of(text, (tensor.contiguous().view(torch.uint8).numpy() for tensor in tensors if tensor is not None))


def to_sparse(tensor: Tensor, log_sigma2: Tensor | None = None) -> SparseTensor:
    """Args: tensors of any shape, at most 2^31 elements; both of the same."""
    flat = tensor.detach().flatten().cpu()
    kept = flat != 0
    sigmas = None if log_sigma2 is None else log_sigma2.detach().flatten().cpu()[kept].to(torch.float16)
    if int(kept.sum()) * _BITS_PER_POSITION < len(flat):
        return SparseTensor(kept.nonzero().flatten().to(torch.int32), flat[kept], sigmas)
    padded = torch.nn.functional.pad(kept, (0, -len(flat) % 8)).view(-1, 8)
    bits = padded.to(torch.uint8) << torch.arange(8, dtype=torch.uint8)
    return SparseTensor(bits.sum(1, dtype=torch.uint8), flat[kept], sigmas)


def to_dense(sparse: SparseTensor, like: Tensor) -> Tensor:
    """A tensor of the shape, dtype and device of `like`."""
    return _spread(sparse.positions, sparse.values, like)


def to_dense_log_sigma2(sparse: SparseTensor, like: Tensor) -> Tensor | None:
    """As `to_dense`, with negative infinity, no variance, where there is no weight; None where it has none."""
    return None if sparse.log_sigma2 is None else _spread(sparse.positions, sparse.log_sigma2, like, -math.inf)


def _spread(positions: Tensor, values: Tensor, like: Tensor, fill: float = 0.0) -> Tensor:
    flat = torch.full((like.numel(),), fill, dtype=like.dtype)
    kept = _bits(positions)[: like.numel()] if positions.dtype == torch.uint8 else positions.long()
    flat[kept] = values.to(like.dtype)
    return flat.view(like.shape).to(like.device)


class Points:
    """The tensors of each point, in the order of the curve; names are the client's, so a checkpoint has them by position."""

    def __init__(self) -> None:
        self._points: list[dict[str, SparseTensor]] = []

    def append(self, tensors: Mapping[str, Tensor], log_sigma2: Mapping[str, Tensor] | None = None) -> None:
        """Args: log_sigma2: of the posterior, by name of those tensors that have one."""
        variances = {} if log_sigma2 is None else log_sigma2
        self._points.append({name: to_sparse(tensor, variances.get(name)) for name, tensor in tensors.items()})

    def tensors(self, index: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: to_dense(self._points[index][name], tensor) for name, tensor in like.items()}

    def log_sigma2(self, index: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the weights that have a posterior, by name; -inf where there is no weight."""
        return _all_log_sigma2({name: self._points[index][name] for name in like}, like)

    def __iter__(self) -> Iterator[Mapping[str, SparseTensor]]:
        return iter(self._points)

    def keep(self, count: int) -> None:
        """Drops all but the first points."""
        del self._points[count:]

    def to_checkpoint(self) -> Iterator[tuple[str, Tensor]]:
        for number, point in enumerate(self._points):
            for index, sparse in enumerate(point.values()):
                for key, part in zip(_keys(number, index), (sparse.positions, sparse.values, sparse.log_sigma2), strict=True):
                    if part is not None:
                        yield key, part

    def restore(self, checkpoint: Mapping[str, Tensor], num_points: int, names: Mapping[str, Tensor]) -> None:
        self._points = [
            {name: _sparse_of(lambda key: checkpoint[key].cpu(), checkpoint.keys(), number, index) for index, name in enumerate(names)}
            for number in range(num_points)
        ]


def specs_of(tensors: Mapping[str, Tensor]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=name, shape=tuple(tensor.shape), dtype=_dtype_name(tensor)) for name, tensor in tensors.items())


def write(path: Path, curve: Curve, points: Points) -> None:
    """Writes the points, each with the tensors of `curve.tensors`; the file is replaced as a whole or not at all."""
    sealed = curve.model_copy(update={"digests": tuple(curve.digest(point.values()) for point in points)})
    with replacing(path) as partial:
        save_file(dict(points.to_checkpoint()), partial, {METADATA_KEY: sealed.model_dump_json()})


def read(path: Path) -> Curve:
    """What an untrusted file says of its points; none of their tensors is read.

    Raises: InvalidArtifact where it is damaged or not of this format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            curve = Curve.model_validate_json((file.metadata() or {})[METADATA_KEY])
    except (SafetensorError, ValidationError, KeyError, OSError, ValueError) as error:
        raise _damaged(path, type(error).__name__) from error
    if len(curve.digests) != len(curve.points):
        raise _damaged(path, "another number of digests than of points")
    return curve


@dataclass(frozen=True)
class Point:
    """Dense tensors by name, and of the weights with a posterior log_sigma2, which is -inf where there is no weight."""

    tensors: dict[str, Tensor]
    log_sigma2: dict[str, Tensor]


def read_point(path: Path, curve: Curve, number: int, like: Mapping[str, Tensor]) -> Point:
    """One point of an untrusted file.

    Args:
        path: the file.
        curve: what `read` gave for it.
        number: of the point, from 0.
        like: the tensors of the model, by name; nothing larger than they are is made.
    Returns: tensors of the names, shapes, types and devices of `like`.
    Raises: InvalidArtifact where the file is damaged, or its tensors are not those of `like`.
    """
    if curve.tensors != specs_of(like):
        raise InvalidArtifact(
            f"{path.name} holds other tensors than the model has.",
            param=path.name,
            suggestion="Give the model of that run, and the same options output, architecture and image_size.",
        )
    try:
        with safe_open(path, framework="pt") as file:
            keys = frozenset(file.keys())
            parts = {name: _sparse_of(file.get_tensor, keys, number, index) for index, name in enumerate(like)}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, type(error).__name__) from error
    for name, tensor in like.items():
        if why := _fault(parts[name], tensor):
            raise _damaged(path, f"{name!r} of point {number} has {why}")
    nnz = curve.fixed_nnz + sum(len(parts[name].values) for name, tensor in like.items() if tensor.ndim >= 2)
    if nnz != curve.points[number].nnz:
        raise _damaged(path, f"point {number} has another number of nonzeros than the curve says")
    if curve.digest(parts.values()) != curve.digests[number]:
        raise _damaged(path, f"point {number} has another digest")
    return Point({name: to_dense(parts[name], tensor) for name, tensor in like.items()}, _all_log_sigma2(parts, like))


def verify_points(path: Path, curve: Curve, points: Points, like: Mapping[str, Tensor]) -> None:
    """Reads the file back and compares it with what was written.

    Raises: ArtifactMismatch.
    """
    try:
        sealed = read(path)
        is_same = sealed.model_copy(update={"digests": ()}) == curve
        for number in range(len(curve.points)):
            found, written = read_point(path, sealed, number, like), Point(points.tensors(number, like), points.log_sigma2(number, like))
            is_same = is_same and _are_equal(found.tensors, written.tensors) and _are_equal(found.log_sigma2, written.log_sigma2)
    except InvalidArtifact as error:
        raise ArtifactMismatch(f"{path.name} cannot be read back: {error.detail}", param=path.name) from error
    if not is_same:
        raise ArtifactMismatch(f"{path.name} does not hold the points of the run.", param=path.name)


def _keys(number: int, index: int) -> tuple[str, str, str]:
    point = f"point/{number}/{index}"
    return f"{point}/positions", f"{point}/values", f"{point}/log_sigma2"


def _sparse_of(get: Callable[[str], Tensor], keys: Container[str], number: int, index: int) -> SparseTensor:
    positions, values, log_sigma2 = _keys(number, index)
    return SparseTensor(get(positions), get(values), get(log_sigma2) if log_sigma2 in keys else None)


def _all_log_sigma2(parts: Mapping[str, SparseTensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {name: to_dense_log_sigma2(parts[name], tensor) for name, tensor in like.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _are_equal(found: Mapping[str, Tensor], written: Mapping[str, Tensor]) -> bool:
    return found.keys() == written.keys() and all(torch.equal(found[name], tensor) for name, tensor in written.items())


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _bits(packed: Tensor) -> Tensor:
    return (packed[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).bool().flatten()


def _fault(sparse: SparseTensor, like: Tensor) -> str | None:
    """What is wrong, before anything is allocated by these numbers or indexed with them."""
    positions, values = sparse.positions, sparse.values
    if positions.ndim != 1 or values.ndim != 1 or values.dtype != like.dtype:
        return "parts of a wrong type"
    if not bool((values.isfinite() & (values != 0)).all()):
        return "values that are 0 or not finite"
    sigmas = sparse.log_sigma2
    if sigmas is not None and (sigmas.shape != values.shape or sigmas.dtype != torch.float16 or not bool(sigmas.isfinite().all())):
        return "variances of another number, of a wrong type or not finite"
    if positions.dtype == torch.uint8:
        if len(positions) != math.ceil(like.numel() / 8):
            return "bits for another number of elements"
        bits = _bits(positions)
        return None if int(bits.sum()) == int(bits[: like.numel()].sum()) == len(values) else "another number of bits than of values"
    if positions.dtype != torch.int32:
        return "positions of a wrong type"
    if len(positions) != len(values) or bool((positions[1:] <= positions[:-1]).any()):
        return "positions that do not increase, or another number of them than of values"
    if len(positions) and not 0 <= int(positions[0]) <= int(positions[-1]) < like.numel():
        return "positions outside the tensor"
    return None


def _damaged(path: Path, why: str) -> InvalidArtifact:
    return InvalidArtifact(f"{path.name}: not a readable curve ({why}).", param=path.name, suggestion="Download the artifact again.")
