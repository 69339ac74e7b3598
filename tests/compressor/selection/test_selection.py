"""Intervals, the choice of the point, and the magnitude control."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from compressor.selection.accuracy import accuracy, default_budget, guessing_accuracy, wilson_interval
from compressor.selection.curve import Candidate, choose
from compressor.selection.magnitude import magnitude_masks
from compressor.selection.metric import ACCURACY, RMSE


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_scipys(counts):
    num_correct, num_examples = counts
    expected = binomtest(num_correct, num_examples).proportion_ci(method="wilson")
    assert wilson_interval(num_correct, num_examples) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_default_budget_is_half_a_point_or_what_validation_cannot_resolve():
    assert default_budget(accuracy(98_000, 100_000, "validation")) == 0.005
    few = accuracy(95, 100, "validation")
    assert default_budget(few) == pytest.approx((few.interval[1] - few.interval[0]) / 2)


def test_guessing_is_the_share_of_the_most_frequent_class():
    assert guessing_accuracy(np.array([0, 3, 3, 3, 1])) == 0.6


CURVE = [
    Candidate(1.0, 0.0, 100, 0.950),
    Candidate(1.0, 1.0, 200, 0.965),
    Candidate(1.0, 2.0, 300, 0.975),
    Candidate(0.5, 0.0, 250, 0.975),
]


def test_the_smallest_point_inside_the_budget_is_taken():
    assert choose(CURVE, ACCURACY, dense_metric=0.97, max_metric_drop=0.005) == CURVE[1]  # exactly on the line is inside
    assert choose(CURVE, ACCURACY, dense_metric=0.97, max_metric_drop=0.0) == CURVE[3]
    assert choose(CURVE, ACCURACY, dense_metric=0.97, max_metric_drop=0.5) == CURVE[0]


def test_an_error_is_the_better_the_smaller():
    curve = [Candidate(1.0, 0.0, 100, 1.2), Candidate(1.0, 1.0, 200, 1.01), Candidate(1.0, 2.0, 300, 0.9)]
    assert choose(curve, RMSE, dense_metric=1.0, max_metric_drop=0.01) == curve[1]
    assert choose(curve, RMSE, dense_metric=1.0, max_metric_drop=0.0) == curve[2]
    assert choose(curve, RMSE, dense_metric=0.5, max_metric_drop=0.1) == curve[2]
    assert RMSE.is_better(0.9, 1.0)
    assert not ACCURACY.is_better(0.9, 1.0)
    assert not RMSE.is_better(1.0, 1.0)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_slack_of_the_budget_is_of_the_metrics_own_size(scale):
    assert RMSE.is_inside(0.1 * scale + 0.2 * scale, 0.1 * scale, 0.2 * scale)
    assert not RMSE.is_inside(0.30001 * scale, 0.1 * scale, 0.2 * scale)


def test_with_no_point_inside_the_most_accurate_and_of_equals_the_smaller_is_taken():
    assert choose(CURVE, ACCURACY, dense_metric=0.99, max_metric_drop=0.001) == CURVE[3]


@given(
    st.lists(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=20), min_size=1, max_size=4).flatmap(
        lambda tensors: st.tuples(st.just(tensors), st.integers(0, sum(map(len, tensors))))
    )
)
def test_magnitude_keeps_exactly_the_largest(case):
    tensors, nnz = case
    weights = {str(index): torch.tensor(values) for index, values in enumerate(tensors)}
    masks = magnitude_masks(weights, nnz)
    kept = torch.cat([weights[name].abs()[mask] for name, mask in masks.items()])
    dropped = torch.cat([weights[name].abs()[~mask] for name, mask in masks.items()])
    assert len(kept) == nnz
    assert not len(kept) or not len(dropped) or kept.min() >= dropped.max()
