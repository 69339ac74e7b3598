"""weights.safetensors, curve.safetensors and split.npz decoded by their layout pages alone, with numpy and safetensors' own reader.

Whatever is not as the page says is an AssertionError.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

Array = npt.NDArray[Any]
Tensors = dict[str, tuple[Array, Array | None]]  # by ONNX name, values and, where they have one, what the posterior says of each

_CURVE_PARTS = ("positions", "values", "log_sigma2")


@dataclass(frozen=True)
class Curve:
    """`head`: the JSON object of the file; `points`: of each point the dense tensors, and log_sigma2 with -inf where there is no weight."""

    head: dict[str, Any]
    points: list[Tensors]


def weights(path: Path) -> Tensors:
    """With the standard deviations, 0 where there is no weight."""
    with safe_open(path, framework="numpy") as file:
        text = file.metadata()["bayespress_csr"]
        head = json.loads(text)
        check(head["format_version"] == 1, "another format_version")
        stored = [[file.get_tensor(entry["key"] + suffix) for suffix in _suffixes(entry)] for entry in head["tensors"]]
    sealed = text.replace(f'"digest":"{head["digest"]}"', '"digest":""', 1)
    check(_digest(sealed, chain(*stored)) == head["digest"], "another digest")
    return {entry["name"]: _decoded(entry, parts) for entry, parts in zip(head["tensors"], stored, strict=True)}


def curve(path: Path) -> Curve:
    with safe_open(path, framework="numpy") as file:
        text = file.metadata()["bayespress_curve"]
        head, keys = json.loads(text), set(file.keys())
        check(head["format_version"] == 1, "another format_version")
        sealed = re.sub(r'"digests":\[[^]]*\]', '"digests":[]', text)
        points = []
        for number, point in enumerate(head["points"]):
            names = [[f"point/{number}/{index}/{part}" for part in _CURVE_PARTS] for index, _ in enumerate(head["tensors"])]
            stored = [[file.get_tensor(name) for name in parts if name in keys] for parts in names]
            check(_digest(sealed, chain(*stored)) == head["digests"][number], f"point {number} has another digest")
            tensors = {spec["name"]: _spread(spec["shape"], *parts) for spec, parts in zip(head["tensors"], stored, strict=True)}
            nnz = sum(int(np.count_nonzero(array)) for array, _ in tensors.values() if array.ndim >= 2)
            check(nnz + head["fixed_nnz"] == point["nnz"], f"point {number} has another number of nonzeros")
            points.append(tensors)
    return Curve(head, points)


def split(path: Path) -> dict[str, Array]:
    """Row numbers of the train file by part: each row in one of them, and once."""
    with np.load(path, allow_pickle=False) as archive:
        parts = {name: archive[name] for name in archive.files}
    rows = np.concatenate(list(parts.values()))
    check(rows.dtype == np.int64 and rows.ndim == 1, "row numbers of another type")
    check(np.array_equal(np.sort(rows), np.arange(len(rows))), "a row is missing, or in two parts")
    return parts


def check(is_right: object, why: str) -> None:
    if not is_right:
        raise AssertionError(why)


def _suffixes(entry: dict[str, Any]) -> list[str]:
    own = [""] if entry["layout"] == "dense" else [".crow_indices", ".col_indices", ".values"]
    return own + ([".sigma"] if entry["sigma"] else [])


def _decoded(entry: dict[str, Any], stored: list[Array]) -> tuple[Array, Array | None]:
    sigma = stored.pop() if entry["sigma"] else None
    *index, values = stored
    dense = _to_dense(entry["shape"], index, values)
    if sigma is None:
        return dense, None
    check(sigma.dtype == np.float32 and sigma.shape == values.shape, f"{entry['name']}: deviations of another type or number")
    spread = _to_dense(entry["shape"], index, sigma)
    check(np.array_equal(spread > 0, dense != 0), f"{entry['name']}: a weight without a deviation")
    return dense, spread


def _to_dense(shape: list[int], index: list[Array], values: Array) -> Array:
    if not index:
        check(list(values.shape) == shape, "a tensor of another shape")
        return values
    crow, cols = (part.astype(np.int64) for part in index)
    matrix = np.zeros((shape[0], int(np.prod(shape[1:]))), values.dtype)
    matrix[np.repeat(np.arange(shape[0]), np.diff(crow)), cols] = values
    return matrix.reshape(shape)


def _spread(shape: list[int], positions: Array, values: Array, log_sigma2: Array | None = None) -> tuple[Array, Array | None]:
    where = _positions(positions, shape)
    return _put(shape, where, values, 0), None if log_sigma2 is None else _put(shape, where, log_sigma2, -np.inf)


def _positions(stored: Array, shape: list[int]) -> Array:
    if stored.dtype == np.int32:
        return stored
    check(stored.dtype == np.uint8, "positions of another type")
    return np.flatnonzero(np.unpackbits(stored, bitorder="little")[: int(np.prod(shape))])


def _put(shape: list[int], where: Array, values: Array, fill: float) -> Array:
    flat = np.full(int(np.prod(shape)), fill, values.dtype)
    flat[where] = values
    return flat.reshape(shape)


def _digest(text: str, parts: Iterable[Array]) -> str:
    digest = hashlib.sha256(text.encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:32]
