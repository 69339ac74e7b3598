"""Threads follow the work of a batch, and are given back."""

import pytest
import torch

from compressor.training.threads import sensible_threads, useful_threads


@pytest.mark.parametrize(("flops", "available", "threads"), [(1.2e7, 8, 1), (2.7e8, 2, 1), (2.4e9, 2, 2), (2.4e9, 64, 6), (0, 4, 1)])
def test_threads_follow_the_work(flops, available, threads):
    assert useful_threads(flops, available) == threads


def test_the_number_is_set_for_the_run_and_given_back():
    before = torch.get_num_threads()
    with sensible_threads(1e6) as threads:
        assert torch.get_num_threads() == threads == 1
    assert torch.get_num_threads() == before
