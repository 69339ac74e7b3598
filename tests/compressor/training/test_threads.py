"""Threads follow the work of a batch, and are given back."""

import pytest
import torch
from torch import nn

from compressor.training.rows import Rows
from compressor.training.threads import sensible_threads, useful_threads


@pytest.mark.parametrize(("flops", "available", "threads"), [(6e6, 8, 1), (1.4e8, 2, 1), (1.2e9, 2, 2), (1.2e9, 64, 6), (0, 4, 1)])
def test_threads_follow_the_work(flops, available, threads):
    assert useful_threads(flops, available) == threads


def test_the_number_is_set_for_the_run_and_given_back():
    before = torch.get_num_threads()
    rows = Rows((torch.zeros(100, 8),), torch.zeros(100, dtype=torch.int64), lambda inputs: inputs)
    with sensible_threads(nn.Linear(8, 2), rows, 64) as threads:
        assert torch.get_num_threads() == threads == 1
    assert torch.get_num_threads() == before
