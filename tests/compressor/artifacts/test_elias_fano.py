"""Elias-Fano: any increasing positions survive, in no more bits than promised, and near their entropy."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.artifacts import elias_fano
from compressor.artifacts.elias_fano import MAX_LOW_BITS, MIN_LOW_BITS, best_low_bits, size_bits

quick = settings(max_examples=200, deadline=None)

POSITIONS = st.one_of(
    st.sets(st.integers(0, 60)),
    st.sets(st.integers(0, 2**40), max_size=30),
    st.builds(lambda start, count: set(range(start, start + count)), st.integers(0, 1000), st.integers(0, 300)),
).map(lambda found: np.array(sorted(found), dtype=np.int64))


@quick
@given(POSITIONS, st.integers(MIN_LOW_BITS, MAX_LOW_BITS))
def test_positions_come_back_and_take_the_promised_bits(positions: np.ndarray, low_bits: int) -> None:
    if len(positions) and int(positions[-1]) >> low_bits > 2**22:
        low_bits = MAX_LOW_BITS
    low, high = elias_fano.encode(positions, low_bits)

    assert low.shape == (len(positions), low_bits)
    assert low.size + high.size <= size_bits(len(positions), int(positions.max(initial=0)) + 1, low_bits)
    assert elias_fano.decode(low, high).tolist() == positions.tolist()
    assert elias_fano.decode(low, np.concatenate([high, np.zeros(7, np.uint8)])).tolist() == positions.tolist()


def test_the_bits_are_the_documented_ones() -> None:
    low, high = elias_fano.encode(np.array([1, 6, 7, 20]), 2)
    assert low.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
    assert high.tolist() == [1, 0, 1, 1, 0, 0, 0, 0, 1]


@given(st.integers(0, 10**6), st.integers(1, 10**8))
def test_no_other_low_bits_take_less(count: int, universe: int) -> None:
    best = size_bits(count, universe, best_low_bits(count, universe))
    assert all(best <= size_bits(count, universe, low_bits) for low_bits in range(MIN_LOW_BITS, MAX_LOW_BITS + 1))


@pytest.mark.parametrize(("density", "most"), [(0.002, 1.125), (0.011, 1.125), (0.05, 1.125), (0.1, 1.125), (0.3, 1.3)])
def test_random_positions_take_little_more_than_their_entropy(density: float, most: float) -> None:
    positions = np.flatnonzero(np.random.default_rng(0).random(400_000) < density)
    low, high = elias_fano.encode(positions, best_low_bits(len(positions), 400_000))
    entropy = -math.log2(density) - (1 - density) / density * math.log2(1 - density)
    assert entropy < (low.size + high.size) / len(positions) < most * entropy


@pytest.mark.parametrize(
    ("low", "high"),
    [([[1], [0]], [1, 0, 1, 1]), ([[1], [0]], [1, 0]), ([[1], [0]], [1, 1]), ([[1], [1]], [1, 1])],
    ids=["too many", "too few", "falling", "twice"],
)
def test_bits_that_are_no_increasing_positions_are_refused(low: list[list[int]], high: list[int]) -> None:
    with pytest.raises(ValueError, match="position"):
        elias_fano.decode(np.array(low, np.uint8), np.array(high, np.uint8))


def test_a_million_positions_among_fifty_take_seconds() -> None:
    positions = np.flatnonzero(np.random.default_rng(0).random(50_000_000, dtype=np.float32) < 0.02)
    start = time.process_time()
    low, high = elias_fano.encode(positions, best_low_bits(len(positions), 50_000_000))
    assert np.array_equal(elias_fano.decode(low, high), positions)
    assert time.process_time() - start < 5
