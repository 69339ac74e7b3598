"""Numbers of an untrusted file -> arrays in the shape and type of a model input."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compressor.data.dataset import Array, InputSpec, takes_integers, to_text
from compressor.data.source import Source
from compressor.errors import InvalidDataset, ShapeMismatch


def input_type(spec: InputSpec) -> np.dtype[Any]:
    """In which type numbers for this input are kept: int64, or float32."""
    return np.dtype(np.int64 if takes_integers(spec) else np.float32)


def to_input_type(values: Array, spec: InputSpec, where: Source, name: str, first_row: int = 0) -> Array:
    """`values` [N, ...] as float32, or int64 for an integer input.

    Raises: InvalidDataset where a value is NaN or infinite (also after rounding to float32), or a fraction for an integer input.
    """
    if takes_integers(spec):
        if values.dtype.kind not in "biu":
            raise InvalidDataset(
                f"{where}: {name!r} holds {values.dtype} but input {spec.name!r} takes integers.",
                param=name,
                suggestion="Give integers.",
            )
        return values.astype(np.int64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(np.float32, copy=False)
    if values.dtype.kind == "f":
        row = first_not_finite(converted)
        if row is not None:
            raise InvalidDataset(
                f"{where}, row {first_row + row}: {name!r} holds NaN, infinity or a number beyond float32.",
                param=name,
                suggestion="Drop or fill such rows as in training.",
            )
    return converted


def first_not_finite(values: Array) -> int | None:
    """The first row of `values` [N, ...] that holds NaN or infinity."""
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))


def to_row_shape(width: int, spec: InputSpec) -> tuple[int, ...] | None:
    """The input's shape for rows of `width` numbers; None where they do not fit. At most one dynamic dimension is inferred."""
    wanted = spec.shape[1:]
    known = math.prod(size for size in wanted if size is not None)
    dynamic = sum(size is None for size in wanted)
    if dynamic == 0:
        return tuple(size for size in wanted if size is not None) if known == width else None
    if dynamic > 1 or known == 0 or width % known:
        return None
    return tuple(width // known if size is None else size for size in wanted)


def reshape_rows(values: Array, spec: InputSpec, where: Source, name: str) -> Array:
    """`values` [N, ...] in the input's shape, where that cannot scramble them.

    Dimensions of size 1 come and go freely, and flat rows may be folded or unfolded; anything else, as channels that lie
    on another axis, is an error and not a guess.

    Raises: ShapeMismatch naming both shapes.
    """
    have, wanted = values.shape[1:], spec.shape[1:]
    if len(have) == len(wanted) and all(want in (None, size) for want, size in zip(wanted, have, strict=True)):
        return values
    row_shape = to_row_shape(math.prod(have), spec)
    flat = len(_squeezed(have)) <= 1 or (row_shape is not None and len(_squeezed(row_shape)) <= 1)
    if row_shape is None or not (flat or _squeezed(have) == _squeezed(row_shape)):
        raise shape_mismatch(where, name, values.shape, spec)
    return values.reshape(len(values), *row_shape)


def shape_mismatch(where: Source, name: str, shape: Sequence[int | None], spec: InputSpec) -> ShapeMismatch:
    return ShapeMismatch(
        f"{where}: {name!r} has shape {to_text(shape)}, but input {spec.name!r} takes {to_text(spec.shape)}.",
        param=name,
        suggestion="Bring the data into the input's shape (and order of axes) as in training.",
    )


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
