"""Bits under a range coder, and the models of weights that say how probable each bit is. What `model.bp` is made of; its layout is there.

Every model below is written once and works in both directions: a coder's `code` takes the bits where it writes, and ignores them where it
reads, and gives them back in both cases. Probabilities are computed by integers and single operations of IEEE 754 double precision, in a
fixed order, so that reader and writer agree on any machine.
"""

from typing import Any, Protocol

import constriction
import numpy as np
import numpy.typing as npt

from compressor.artifacts.grid import MAX_CODE

ONE = 2**20  # what probabilities are counted in
_SEGMENTS = 32  # of a row: after each the row's density is estimated anew
_SHORTEST_SEGMENT = 32
_MEMORY = 4  # a block of bits under one probability is a quarter of what came before

Bits = npt.NDArray[np.bool_]
Chances = npt.NDArray[np.int64]


class Coder(Protocol):
    """A stream of bits."""

    def code(self, bits: Bits | None, chances: Chances) -> Bits:
        """Bits whose probability of being 1 is chances / ONE, each in 1 to ONE - 1. A writer needs `bits`, a reader does not look."""
        ...


class Writer:
    """Takes bits in."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._model = constriction.stream.model.Bernoulli(perfect=False)

    def code(self, bits: Bits | None, chances: Chances) -> Bits:
        if bits is None:
            raise ValueError("a writer needs bits")
        self._encoder.encode(bits.astype(np.int32), self._model, chances / ONE)
        return bits

    def to_bytes(self) -> bytes:
        """32-bit words, little-endian."""
        return bytes(self._encoder.get_compressed().astype("<u4").tobytes())


class Reader:
    """Gives bits back; beyond the end of the data, some bits."""

    def __init__(self, data: bytes) -> None:
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))
        self._model = constriction.stream.model.Bernoulli(perfect=False)

    def code(self, bits: Bits | None, chances: Chances) -> Bits:  # noqa: ARG002  what a writer needs
        return np.asarray(self._decoder.decode(self._model, chances / ONE), dtype=np.bool_)


def code_integer(coder: Coder, value: int | None, bits: int) -> int:
    """A number of so many bits, all values equally probable, the highest bit first."""
    shifts = np.arange(bits - 1, -1, -1)
    given = None if value is None else ((value >> shifts) & 1).astype(np.bool_)
    found = coder.code(given, np.full(bits, ONE // 2))
    return int((found.astype(np.int64) << shifts).sum())


def code_flags(coder: Coder, flags: Bits | None, count: int) -> Bits:
    """`count` bits whose probability is what those before them show, (ones + 1/2) / (count + 1), estimated anew after each block."""
    found = np.empty(count, np.bool_)
    start, ones = 0, 0
    while start < count:
        stop = min(count, start + max(1, start // _MEMORY))
        chance = _clip(np.array((2 * ones + 1) * ONE // (2 * start + 2)))
        found[start:stop] = coder.code(None if flags is None else flags[start:stop], np.full(stop - start, chance))
        ones += int(found[start:stop].sum())
        start = stop
    return found


def code_pattern(coder: Coder, pattern: Bits | None, shape: tuple[int, int]) -> Bits:
    """Where a matrix has weights, by the density of its rows and columns.

    The probability of the next element has the odds of the density g of all that is still to come, times a factor of its column and one
    of its row, (found + 1) / (expected + 1) each: the mean of a Poisson rate with a gamma prior of shape and rate 1. What a row has found
    and expected is looked at after each segment of it.
    """
    rows, cols = shape
    width = max(_SHORTEST_SEGMENT, -(-cols // _SEGMENTS))
    left = code_integer(coder, None if pattern is None else int(np.count_nonzero(pattern)), (rows * cols).bit_length())
    found = np.zeros(shape, np.bool_)
    if left > rows * cols:
        raise ValueError("more weights than places")
    in_column, expected_in_column = np.zeros(cols), np.zeros(cols)
    rest = rows * cols
    for row in range(rows):
        in_row, expected_in_row = 0, 0
        for start in range(0, cols, width):
            part = slice(start, min(cols, start + width))
            density = min(max(left / rest, 1 / ONE), 1 - 1 / ONE)
            column = (in_column[part] + 1) / (expected_in_column[part] + 1)
            factor = (in_row + 1) / (expected_in_row / ONE + 1)
            odds = density / (1 - density) * factor * column
            bits = coder.code(None if pattern is None else pattern[row, part], _clip(np.floor(odds / (1 + odds) * ONE)))
            found[row, part] = bits
            count = int(np.count_nonzero(bits))
            in_row, left, rest = in_row + count, left - count, rest - len(bits)
            expected_in_row += int(np.floor(np.minimum(density * column, 1) * ONE).sum())
            in_column[part] += bits
            expected_in_column[part] += density * factor
    return found


def code_numbers(coder: Coder, numbers: npt.NDArray[Any] | None, count: int) -> npt.NDArray[np.int8]:
    """`count` integers from -MAX_CODE to MAX_CODE without 0: their signs, then for 1, 2, ... of those that reach it, which go beyond."""
    signs = code_flags(coder, None if numbers is None else numbers < 0, count)
    sizes = None if numbers is None else np.abs(numbers.astype(np.int16))
    found = np.ones(count, np.int8)
    reached = np.arange(count)
    for size in range(1, MAX_CODE):
        beyond = code_flags(coder, None if sizes is None else sizes[reached] > size, len(reached))
        reached = reached[beyond]
        if not len(reached):
            break
        found[reached] += 1
    return np.where(signs, -found, found).astype(np.int8)


def _clip(chances: npt.NDArray[Any]) -> Chances:
    return np.asarray(np.clip(chances, 1, ONE - 1), dtype=np.int64)
