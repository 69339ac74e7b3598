"""The root mean squared error with its interval, and the line above which a model does no better than guessing."""

from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.report import MetricValue
from compressor.selection.accuracy import NORMAL_95


def rmse(squared_errors: NDArray[np.float64], split: Literal["test", "validation"]) -> MetricValue:
    """Root of the mean of the rows' squared errors.

    Its 95 % interval is the root of the normal one of the mean squared error, which asks for no distribution of the residuals but for
    rows enough that their squares average out (a hundred; of heavy tails, more).
    """
    mean, half_width = mean_interval(squared_errors)
    interval = sqrt(max(0.0, mean - half_width)), sqrt(mean + half_width)
    return MetricValue(value=sqrt(mean), interval=interval, split=split, num_examples=len(squared_errors))


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean and the half-width of its normal 95 % interval."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()), NORMAL_95 * deviation / sqrt(len(values))


def guessing_rmse(labels: NDArray[np.float32]) -> float:
    """RMSE of always giving the mean of these labels, [N, K]."""
    return float(np.sqrt(labels.astype(np.float64).var(axis=0).mean()))
