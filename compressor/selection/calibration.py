"""How far probabilities can be trusted: calibration error, log-likelihood and Brier score, from what is kept of each row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.report import CalibrationValue

NUM_BINS = 15
_SMALLEST_PROBABILITY = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RowScores:
    """What one model gives for each of N rows.

    Attributes:
        predicted: its class, int64.
        confidence: the probability of that class.
        nll: negative logarithm of the label's probability, nats.
        brier: squared errors of the probabilities, summed over the classes.
    """

    predicted: NDArray[np.int64]
    confidence: Floats
    nll: Floats
    brier: Floats


def score_rows(predicted: NDArray[np.int64], probabilities: Floats, labels: NDArray[np.int64]) -> RowScores:
    """Of probabilities [N, C] and labels [N] in [0, C)."""
    rows = np.arange(len(labels))
    of_label = probabilities[rows, labels]
    # Sum of (p - y)^2 over the classes, y being one-hot, without the one-hot array.
    brier = np.square(probabilities).sum(axis=1) - 2 * of_label + 1
    return RowScores(predicted, probabilities[rows, predicted], -np.log(of_label.clip(_SMALLEST_PROBABILITY)), brier)


def join_rows(parts: list[RowScores]) -> RowScores:
    return RowScores(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("predicted", "confidence", "nll", "brier")))


def calibration(scores: RowScores, labels: NDArray[np.int64]) -> CalibrationValue:
    """The three over all rows."""
    return CalibrationValue(
        ece=expected_calibration_error(scores.confidence, scores.predicted == labels),
        nll=float(scores.nll.mean()),
        brier=float(scores.brier.mean()),
    )


def expected_calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """|accuracy - mean confidence| in each of 15 bins of equal width over [0, 1], mean over the bins weighted by their rows.

    Source: Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599, eq. 3.
    """
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
