"""Paired differences: closed forms, coverage, and that pairing is worth it."""

import numpy as np
import pytest

from compressor.selection.accuracy import accuracy
from compressor.selection.paired import accuracy_difference, rmse_difference
from compressor.selection.regression import guessing_rmse, rmse


def test_the_difference_of_two_accuracies_is_that_of_mcnemars_table():
    """Ten rows lost and four gained, of 100; two that are wrong in both change their class."""
    labels = np.zeros(100, np.int64)
    dense, compressed = np.zeros(100, np.int64), np.zeros(100, np.int64)
    compressed[:10] = 1
    dense[10:14] = 1
    dense[14:16], compressed[14:16] = 1, 2
    found = accuracy_difference(dense, compressed, labels)
    assert found.value == pytest.approx(-0.06)
    assert found.num_changed == 16
    # Agresti and Min: each of the four cells with half a row more.
    p12, p21 = 4.5 / 102, 10.5 / 102
    half_width = 1.959964 * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / 102)
    assert found.interval == pytest.approx((p12 - p21 - half_width, p12 - p21 + half_width), abs=1e-6)


def test_equal_predictions_have_a_narrow_interval_and_not_none():
    labels = np.arange(1000) % 10
    found = accuracy_difference(labels, labels, labels)
    low, high = found.interval
    assert (found.value, found.num_changed) == (0, 0)
    assert low < 0 < high
    wilson = accuracy(1000, 1000, "test").interval
    assert high - low < wilson[1] - wilson[0] + 1e-3


def test_the_interval_covers_the_difference_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        kinds = generator.choice(4, 150, p=[0.85, 0.06, 0.02, 0.07])  # both right, lost, gained, both wrong
        dense, compressed = np.isin(kinds, (2, 3)).astype(np.int64), np.isin(kinds, (1, 3)).astype(np.int64)
        low, high = accuracy_difference(dense, compressed, np.zeros(150, np.int64)).interval
        covered += low <= -0.04 <= high
    assert 0.93 < covered / 2000 < 0.975


def test_rmse_is_numpys_and_its_interval_covers_it():
    generator = np.random.default_rng(0)
    residuals = generator.laplace(size=(400, 3))
    found = rmse(np.square(residuals).mean(1), "test")
    assert found.value == pytest.approx(np.sqrt(np.square(residuals).mean()))
    covered = 0
    for _ in range(500):
        low, high = rmse(np.square(generator.normal(size=300)), "test").interval
        covered += low <= 1 <= high
    assert 0.92 < covered / 500 < 0.98


def test_the_difference_of_two_rmses():
    generator = np.random.default_rng(0)
    dense = np.square(generator.normal(size=500))
    compressed = dense * 1.1 + 0.01 * np.square(generator.normal(size=500))
    found = rmse_difference(dense, compressed)
    assert found.value == pytest.approx(np.sqrt(compressed.mean()) - np.sqrt(dense.mean()))
    assert found.num_changed is None
    low, high = found.interval
    assert 0 < low < found.value < high
    alone = rmse(dense, "test").interval
    assert high - low < (alone[1] - alone[0]) / 3
    assert rmse_difference(np.zeros(5), np.ones(5)).interval == (1, 1)


def test_guessing_the_mean_has_the_deviation_of_the_labels():
    labels = np.random.default_rng(0).normal(3, 2, (1000, 2)).astype(np.float32)
    assert guessing_rmse(labels) == pytest.approx(np.sqrt(np.square(labels - labels.mean(0)).mean()), rel=1e-6)
