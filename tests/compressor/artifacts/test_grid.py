"""Grids: exact products, the nearest code, the fewest bits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.artifacts.grid import MAX_CODE, GridTensor, round_step, to_grid


@given(st.floats(1e-30, 1e30))
def test_a_step_is_rounded_as_torch_rounds_to_bfloat16(step: float) -> None:
    assert round_step(step) == float(torch.tensor(step, dtype=torch.float32).bfloat16())


@given(st.floats(1e-20, 1e20), st.lists(st.integers(-MAX_CODE, MAX_CODE), max_size=20))
def test_values_are_exact_products_and_come_back_as_the_same_codes(step: float, codes: list[int]) -> None:
    grid = GridTensor(np.array(codes, np.int8), round_step(step))

    assert [float(value) for value in grid.values()] == [code * grid.step for code in codes]
    assert to_grid(grid.values(), grid.step).codes.tolist() == codes


def test_what_is_beyond_the_grid_takes_its_last_code() -> None:
    assert to_grid(np.array([1e9, -1e9, 0.2, 0.6]), 1.0).codes.tolist() == [MAX_CODE, -MAX_CODE, 0, 1]


@pytest.mark.parametrize(("largest", "bits"), [(0, 2), (1, 2), (2, 2), (3, 3), (4, 3), (8, 4), (9, 5), (16, 5), (64, 7), (65, 8), (127, 8)])
def test_bits_tell_all_nonzero_codes_apart(largest: int, bits: int) -> None:
    assert GridTensor(np.array([[largest, 0], [-largest, 0]], np.int8), 0.5).bits == bits
