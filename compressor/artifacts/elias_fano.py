"""Elias-Fano: increasing integers as low bits and a bitmap of unary numbers, which numpy and an ONNX graph decode without a loop.

Position p, the i-th of `count`, is cut into p >> low_bits and its low_bits lowest bits. The low bits are rows of a matrix, the lowest bit
first; for the rest, bit (p >> low_bits) + i of the bitmap is set, so that the zeros before the i-th one are the high part of p.
Random positions take an eighth more than their entropy at most, where no more than a tenth of them are taken.
Source: Elias 1974, Efficient storage and retrieval by content and address of static files, J. ACM 21(2).
"""

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

# Sums of 2^0 to 2^22 are exact in float32, in which the graph adds the low bits up. With one low bit at least no reader meets an empty
# matrix; that costs something only where more than half of the positions are taken.
MIN_LOW_BITS, MAX_LOW_BITS = 1, 23


def size_bits(count: int, universe: int, low_bits: int) -> int:
    """How many bits `count` positions below `universe` take at most."""
    return count * (low_bits + 1) + (max(universe, 1) - 1 >> low_bits)


def best_low_bits(count: int, universe: int) -> int:
    """The low bits with which `count` positions below `universe` take the fewest bits."""
    return min(range(MIN_LOW_BITS, MAX_LOW_BITS + 1), key=lambda low_bits: size_bits(count, universe, low_bits))


def encode(positions: Positions, low_bits: int) -> tuple[Bits, Bits]:
    """Positions as bits.

    Args:
        positions: [count], strictly increasing, not negative.
        low_bits: MIN_LOW_BITS to MAX_LOW_BITS.
    Returns: the low bits [count, low_bits] and the bitmap, whose last bit is a one: arrays of 0 and 1.
    """
    low = np.empty((len(positions), low_bits), np.uint8)
    for bit in range(low_bits):
        low[:, bit] = (positions >> bit) & 1
    ones = (positions >> low_bits) + np.arange(len(positions))
    high = np.zeros(int(ones[-1]) + 1 if len(ones) else 0, np.uint8)
    high[ones] = 1
    return low, high


def decode(low: Bits, high: Bits) -> Positions:
    """What `encode` was given.

    Args:
        low: [count, low_bits], of 0 and 1.
        high: the bitmap; zeros after the last one say nothing.
    Returns: positions [count].
    Raises: ValueError where the bitmap has not `count` ones, or the positions do not increase.
    """
    ones = np.flatnonzero(high)
    if len(ones) != len(low):
        raise ValueError(f"{len(ones)} high parts of {len(low)} positions")
    positions: Positions = (ones - np.arange(len(ones))) << low.shape[1]
    for bit in range(low.shape[1]):
        positions |= low[:, bit].astype(np.int64) << bit
    if np.any(positions[1:] <= positions[:-1]):
        raise ValueError("positions that do not increase")
    return positions
