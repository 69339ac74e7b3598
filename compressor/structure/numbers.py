"""What a value holds whatever comes in, as a template: as many dimensions as the value, of one element where an axis is alike all along.

The axis of the units has an element for each of them. NaN where the number is not known.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from compressor.structure.sizes import Atom
from compressor.structure.units import Array, Layout, Stored

Numbers = npt.NDArray[np.float64]


def nothing_known(rank: int) -> Numbers:
    return np.full((1,) * rank, np.nan)


def along(array: Numbers, layout: Layout) -> Numbers:
    """The number at each position of the axis, NaN where they are several; `array` may lack axes at the front."""
    shape = [1] * layout.rank
    shape[layout.axis] = len(layout.units)
    whole = np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(shape)))
    lines = np.moveaxis(whole, layout.axis, 0).reshape(len(layout.units), -1)
    return np.where((lines == lines[:, :1]).all(1), lines[:, 0], np.nan)


def spread(line: Numbers, layout: Layout) -> Numbers:
    """The template of a number for each position of the axis."""
    shape = [1] * layout.rank
    shape[layout.axis] = -1
    return line.reshape(shape)


def alike(array: Numbers, axes: Sequence[int]) -> Numbers:
    """With one element on these axes: NaN where they were several."""
    for axis in axes:
        first = array.take([0], axis)
        array = np.where((array == first).all(axis, keepdims=True), first, np.nan)
    return array


def viewed(array: Numbers, atoms: Sequence[Atom], rank: int, layout: Layout) -> Numbers:
    """The template under another shape, of `rank` dimensions; `layout` is that of the output."""
    factors = [0 if atom.size is None or atom.size.symbols else atom.size.factor for atom in atoms]
    full = [1] * len(atoms)
    for axis, size in enumerate(array.shape):
        inside = _last(factors, [index for index, atom in enumerate(atoms) if atom.given == axis], size)
        if inside is None:
            array = alike(array, [axis])
        for index in inside or ():
            full[index] = factors[index]
    array = array.reshape(full)
    shape = [1] * rank
    for axis in range(rank):
        own = [index for index, atom in enumerate(atoms) if atom.made == axis]
        if all(full[index] == 1 for index in own):
            continue
        size = len(layout.units) if axis == layout.axis else math.prod(factors[index] for index in own)
        inside = _last(factors, own, size) or []
        array = alike(array, [index for index in own if index not in inside])
        for index in own:
            full[index] = factors[index] if index in inside else 1
        shape[axis] = math.prod(full[index] for index in own)
    return np.broadcast_to(array, full).reshape(shape)


def _last(factors: Sequence[int], own: Sequence[int], size: int) -> Sequence[int] | None:
    """The last ones of `own` whose factors, all known, have this product."""
    starts = range(len(own), -1, -1)
    return next((own[start:] for start in starts if size and math.prod(factors[index] for index in own[start:]) == size), None)


def bias_numbers(bias: Stored | None, layout: Layout, arrays: Mapping[str, Array]) -> Numbers:
    return np.zeros(len(layout.units)) if bias is None else along(bias.of(arrays).astype(np.float64), layout)


def added(place: Array, numbers: Numbers) -> bool:
    """Whether the sums are finite in the type of `place`, which then holds them."""
    with np.errstate(over="ignore"):
        sums = (place.ravel() + numbers).astype(place.dtype)
    if not np.isfinite(sums.astype(np.float64)).all():
        return False
    place[...] = sums.reshape(place.shape)
    return True
