"""Accuracy with its interval, and the line below which a model does no better than guessing."""

from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.report import MetricValue

NORMAL_95 = 1.959963984540054  # the two-sided 95 % point of the normal distribution


def wilson_interval(num_correct: int, num_examples: int) -> tuple[float, float]:
    """95 % score interval of a proportion; unlike the normal one it is right near 0 and 1 and for few rows.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share = num_correct / num_examples
    spread = NORMAL_95**2 / num_examples
    centre = (share + spread / 2) / (1 + spread)
    half_width = NORMAL_95 * sqrt(share * (1 - share) / num_examples + spread / (4 * num_examples)) / (1 + spread)
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def accuracy(num_correct: int, num_examples: int, split: Literal["test", "validation"]) -> MetricValue:
    """Share of rows whose highest-scored class is their label."""
    return MetricValue(
        value=num_correct / num_examples, interval=wilson_interval(num_correct, num_examples), split=split, num_examples=num_examples
    )


def guessing_accuracy(labels: NDArray[np.int64]) -> float:
    """Accuracy of always naming the most frequent class of these labels."""
    return float(np.bincount(labels).max() / len(labels))


def default_budget(dense: MetricValue) -> float:
    """Half a point, or what this validation part cannot resolve anyway: the half-width of its interval."""
    low, high = dense.interval
    return max(0.005, (high - low) / 2)
