"""`weights.safetensors`: every float tensor of the compressed model, matrices as CSR. The layout, format_version 1:

A safetensors file. Its metadata has "bayespress_csr", a JSON object with "format_version" = 1, "digest", and "tensors", a list with one
object per tensor of the model: {"name", "key", "layout", "shape", "sigma"}, where "name" is the tensor's ONNX name and "shape" its
dense shape.
layout "csr": the tensor, of rank 2 or more, was reshaped to the matrix (shape[0], product of the rest), row-major, and lies in
  <key>.crow_indices  smallest unsigned integers that fit, shape[0] + 1 of them: row r has the entries crow[r] to crow[r + 1]
  <key>.col_indices   smallest unsigned integers that fit, one per nonzero, increasing within a row
  <key>.values        the nonzeros, in the tensor's own float type
layout "dense": the tensor as it is under <key>: biases, scales, and matrices with so few zeros that CSR takes more bytes.
Where "sigma" is true, there also is
  <key>.sigma         the posterior's standard deviations, float32, as the values are; of layout "dense" in its shape, 0 where it is 0
"digest" is the first 32 hexadecimal digits of the SHA-256 of the JSON text, which has no spaces, with an empty digest and, behind it, the
bytes of what lies under the keys, tensor for tensor and in the order above.
So that a few bytes do not become gigabytes, the tensors of layout "csr" have together at most 2^24 elements and 128 for each byte of what
lies under the keys of all tensors.
"key" is the name, with underscores after it where a key of another tensor would be the same.
`load_csr` gives the matrices to scipy; `read` gives all tensors in their dense shapes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_array

from compressor.artifacts.digest import digest_of
from compressor.atomic import replacing
from compressor.errors import InvalidArtifact

# One key alone: safetensors writes the keys of its metadata in random order, and the same tensors shall give the same bytes.
METADATA_KEY = "bayespress_csr"

Array = npt.NDArray[Any]

_INTEGERS = (np.uint8, np.uint16, np.uint32, np.uint64)
_CSR_SUFFIXES = (".crow_indices", ".col_indices", ".values")
_SIGMA = ".sigma"


def _max_elements(stored_bytes: int) -> int:
    """A damaged shape must not make `read` allocate the machine's memory."""
    return 2**24 + 128 * stored_bytes


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    key: str
    layout: Literal["csr", "dense"]
    shape: tuple[int, ...] = Field(max_length=64)
    sigma: bool = False

    def matrix_shape(self) -> tuple[int, int]:
        return self.shape[0], math.prod(self.shape[1:])


class _Layout(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    digest: str
    tensors: list[_Tensor]

    def sealed(self, stored: Iterable[Array]) -> "_Layout":
        """With the digest of itself and of these arrays, in their order."""
        text = self.model_copy(update={"digest": ""}).model_dump_json()
        return self.model_copy(update={"digest": digest_of(text, stored)})


def write(path: Path, arrays: Mapping[str, Array], sigmas: Mapping[str, Array] | None = None) -> None:
    """Writes a model's tensors; the file is replaced as a whole or not at all.

    Args:
        arrays: float tensors by ONNX name.
        sigmas: standard deviations of the posterior, by name and in the shapes of those tensors that have one.
    """
    stored: dict[str, Array] = {}
    tensors: list[_Tensor] = []
    # The header's own key, which no tensor may have.
    taken = {"__metadata__"}
    all_parts = _all_parts({name: to_stored_type(array) for name, array in arrays.items()})
    for name, array in arrays.items():
        parts = all_parts[name]
        if sigmas is not None and name in sigmas:
            sigma = np.where(array != 0, sigmas[name], 0).astype(np.float32)
            parts[_SIGMA] = sigma if "" in parts else sigma[array != 0]
        key = name
        while any(key + suffix in taken for suffix in parts):
            key += "_"
        taken.update(key + suffix for suffix in parts)
        stored |= {key + suffix: part for suffix, part in parts.items()}
        form: Literal["csr", "dense"] = "dense" if "" in parts else "csr"
        tensors.append(_Tensor(name=name, key=key, layout=form, shape=array.shape, sigma=_SIGMA in parts))
    layout = _Layout(digest="", tensors=tensors).sealed(stored.values())
    with replacing(path) as partial:
        save_file(stored, partial, {METADATA_KEY: layout.model_dump_json()})


def load_csr(path: str | Path) -> dict[str, csr_array]:
    """The weight matrices of a `weights.safetensors` file.

    Args:
        path: the file.
    Returns: by ONNX name, every tensor of two or more dimensions as a scipy CSR array of shape (shape[0], product of the rest);
        float16 values as float32, because scipy has no sparse float16.
    Raises: InvalidArtifact where the file is damaged or not of this format.
    """
    matrices = {}
    for tensor, parts, _ in _read_parts(Path(path)):
        if len(tensor.shape) < 2:
            continue
        matrix = parts[0].reshape(tensor.matrix_shape()) if tensor.layout == "dense" else None
        wide = np.promote_types(parts[-1].dtype, np.float32)
        if matrix is not None:
            matrices[tensor.name] = csr_array(matrix.astype(wide))
        else:
            crow, col, values = parts
            index = np.int32 if max(len(col), *tensor.matrix_shape()) < 2**31 else np.int64
            matrices[tensor.name] = csr_array((values.astype(wide), col.astype(index), crow.astype(index)), shape=tensor.matrix_shape())
    return matrices


def read(path: Path) -> dict[str, Array]:
    """All tensors of the file in their dense shapes and own types, by ONNX name.

    Raises: InvalidArtifact where the file is damaged or not of this format.
    """
    return {tensor.name: _to_dense(tensor, parts) for tensor, parts, _ in _read_parts(path)}


def read_sigmas(path: Path) -> dict[str, Array]:
    """The posterior's standard deviations of the tensors that have them, by ONNX name, in their dense shapes, 0 where there is no weight.

    Raises: InvalidArtifact where the file is damaged or not of this format.
    """
    return {tensor.name: _to_dense(tensor, (*parts[:-1], sigma)) for tensor, parts, sigma in _read_parts(path) if sigma is not None}


def to_stored_type(array: Array) -> Array:
    """The array in the float type in which it is stored: its own, or float32 where numpy has it only as an extension (bfloat16)."""
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _all_parts(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """What is stored of each; the emptiest matrices dense where there would be more elements than a reader takes."""
    parts = {name: _to_parts(array) for name, array in arrays.items()}
    sparse = sorted((name for name in parts if "" not in parts[name]), key=lambda name: arrays[name].size / _bytes_of(parts[name]))
    while sum(arrays[name].size for name in sparse) > _max_elements(sum(map(_bytes_of, parts.values()))):
        emptiest = sparse.pop()
        parts[emptiest] = _to_dense_parts(arrays[emptiest])
    return parts


def _bytes_of(parts: Mapping[str, Array]) -> int:
    return sum(part.nbytes for part in parts.values())


def _to_dense_parts(array: Array) -> dict[str, Array]:
    return {"": np.ascontiguousarray(array).reshape(array.shape)}


def _to_parts(array: Array) -> dict[str, Array]:
    """What is stored, by suffix of the key: the three CSR arrays, or "" alone where dense takes fewer bytes."""
    if array.ndim < 2 or array.size == 0:
        return _to_dense_parts(array)
    dense = np.ascontiguousarray(array)
    matrix = dense.reshape(len(dense), -1)
    rows, cols = np.nonzero(matrix)
    crow = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(matrix)))])
    parts = (_to_smallest(crow, len(cols)), _to_smallest(cols, matrix.shape[1] - 1), matrix[rows, cols])
    if sum(part.nbytes for part in parts) >= dense.nbytes:
        return _to_dense_parts(array)
    return dict(zip(_CSR_SUFFIXES, parts, strict=True))


def _to_smallest(indices: Array, largest: int) -> Array:
    return indices.astype(next(kind for kind in _INTEGERS if largest <= np.iinfo(kind).max))


def _read_parts(path: Path) -> list[tuple[_Tensor, tuple[Array, ...], Array | None]]:
    try:
        with safe_open(path, framework="numpy") as file:
            layout = _Layout.model_validate_json((file.metadata() or {})[METADATA_KEY])
            result = [
                (
                    tensor,
                    tuple(file.get_tensor(tensor.key + suffix) for suffix in _suffixes(tensor)),
                    file.get_tensor(tensor.key + _SIGMA) if tensor.sigma else None,
                )
                for tensor in layout.tensors
            ]
    except (SafetensorError, ValidationError, KeyError, OSError, ValueError) as error:
        raise _damaged(path, type(error).__name__) from error
    if len({tensor.name for tensor in layout.tensors}) != len(layout.tensors):
        raise _damaged(path, "two tensors have the same name")
    elements = sum(math.prod(tensor.shape) for tensor in layout.tensors if tensor.layout == "csr" and min(tensor.shape, default=0) > 0)
    if elements > _max_elements(sum(part.nbytes for _, parts, sigma in result for part in (*parts, *_present(sigma)))):
        raise _damaged(path, f"{elements:,} elements in so few bytes")
    for tensor, parts, sigma in result:
        _check(tensor, parts, path)
        if sigma is not None and (sigma.dtype != np.float32 or sigma.shape != parts[-1].shape):
            raise _damaged(path, f"{tensor.name!r} has standard deviations of another number or type than its values")
    if layout.sealed(array for _, parts, sigma in result for array in (*parts, *_present(sigma))) != layout:
        raise _damaged(path, "its digest is another")
    return result


def _present(sigma: Array | None) -> tuple[Array, ...]:
    return () if sigma is None else (sigma,)


def _suffixes(tensor: _Tensor) -> Sequence[str]:
    return ("",) if tensor.layout == "dense" else _CSR_SUFFIXES


def _check(tensor: _Tensor, parts: tuple[Array, ...], path: Path) -> None:
    """Every property that a CSR reader relies on, before scipy's compiled code indexes with these numbers."""
    if parts[-1].dtype.kind != "f":
        raise _damaged(path, f"{tensor.name!r} does not hold floats")
    if tensor.layout == "dense":
        if parts[0].shape != tensor.shape:
            raise _damaged(path, f"{tensor.name!r} does not have its declared shape")
        return
    if len(tensor.shape) < 2 or min(tensor.shape) < 1:
        raise _damaged(path, f"{tensor.name!r} declares no shape of a matrix")
    rows, cols = tensor.matrix_shape()
    crow, col, values = parts
    if any(part.ndim != 1 for part in parts) or crow.dtype.kind != "u" or col.dtype.kind != "u":
        raise _damaged(path, f"{tensor.name!r} has index arrays of a wrong type")
    if len(crow) != rows + 1 or len(col) != len(values):
        raise _damaged(path, f"{tensor.name!r} has index arrays of a wrong length")
    # Compared, not subtracted: the differences of unsigned numbers wrap around.
    if crow[0] != 0 or crow[-1] != len(col) or np.any(crow[1:] < crow[:-1]):
        raise _damaged(path, f"{tensor.name!r} has crow_indices that do not rise from 0 to the number of values")
    if np.any(col >= cols):
        raise _damaged(path, f"{tensor.name!r} has col_indices beyond its {cols} columns")
    is_row_start = np.zeros(len(col) + 1, dtype=bool)
    is_row_start[crow.astype(np.int64)] = True
    if np.any((col[1:] <= col[:-1]) & ~is_row_start[1 : len(col)]):
        raise _damaged(path, f"{tensor.name!r} has col_indices that do not increase within a row")


def _to_dense(tensor: _Tensor, parts: tuple[Array, ...]) -> Array:
    if tensor.layout == "dense":
        return parts[0]
    crow, col, values = parts
    dense = np.zeros(tensor.matrix_shape(), dtype=values.dtype)
    row_lengths: Array = (crow[1:] - crow[:-1]).astype(np.int64)
    dense[np.repeat(np.arange(len(dense)), row_lengths), col] = values
    return dense.reshape(tensor.shape)


def _damaged(path: Path, why: str) -> InvalidArtifact:
    return InvalidArtifact(f"{path.name}: not a readable weights file ({why}).", param=path.name, suggestion="Download the artifact again.")
