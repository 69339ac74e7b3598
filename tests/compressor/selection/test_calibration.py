"""Calibration against scikit-learn and against the definitions, spelt out row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from compressor.selection.calibration import NUM_BINS, calibration, expected_calibration_error, join_rows, score_rows


def drawn(seed: int, num_rows: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(num_classes, 0.5), num_rows)
    return probabilities, generator.integers(0, num_classes, num_rows)


def ece_by_definition(confidence: np.ndarray, correct: np.ndarray) -> float:
    gap = 0.0
    for index in range(NUM_BINS):
        low, high = index / NUM_BINS, (index + 1) / NUM_BINS
        inside = (confidence >= low) & ((confidence < high) | (index == NUM_BINS - 1))
        if inside.any():
            gap += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return gap


@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(2, 6))
def test_all_three_are_those_of_their_definitions(seed, num_rows, num_classes):
    probabilities, labels = drawn(seed, num_rows, num_classes)
    predicted = probabilities.argmax(1)
    found = calibration(score_rows(predicted, probabilities, labels), labels)
    assert found.nll == pytest.approx(log_loss(labels, probabilities.clip(1e-12), labels=range(num_classes)), rel=1e-6)
    assert found.brier == pytest.approx(np.square(probabilities - np.eye(num_classes)[labels]).sum(1).mean())
    assert found.ece == pytest.approx(ece_by_definition(probabilities.max(1), predicted == labels))


def test_who_is_right_as_often_as_he_says_is_calibrated():
    confidence = np.repeat([0.6, 0.9], 100)
    correct = np.concatenate([np.arange(100) < 60, np.arange(100) < 90])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0)
    assert expected_calibration_error(np.ones(10), np.zeros(10, bool)) == 1


def test_a_label_of_no_probability_costs_a_finite_sum():
    scores = score_rows(np.array([0]), np.array([[1.0, 0.0]]), np.array([1]))
    assert scores.nll[0] == pytest.approx(-np.log(1e-12))
    assert scores.brier[0] == 2


def test_chunks_make_a_whole():
    probabilities, labels = drawn(0, 50, 3)
    predicted = probabilities.argmax(1)
    parts = [score_rows(predicted[rows], probabilities[rows], labels[rows]) for rows in (slice(0, 20), slice(20, 50))]
    assert calibration(join_rows(parts), labels) == calibration(score_rows(predicted, probabilities, labels), labels)
