"""Two models on the same rows: a difference whose interval is narrower than those of the two metrics, which share what the rows do."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from compressor.report import Difference
from compressor.selection.accuracy import NORMAL_95
from compressor.selection.regression import mean_interval


def accuracy_difference(dense: NDArray[np.int64], compressed: NDArray[np.int64], labels: NDArray[np.int64]) -> Difference:
    """Accuracy of the classes `compressed` minus that of `dense`, [N] each.

    The interval is Wald's of McNemar's table after half a row has been added to each of its four cells: unlike Wald's own it has a width
    where no row, or every row, differs.
    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24.
    """
    was, now = dense == labels, compressed == labels
    gained, lost, num_rows = int((~was & now).sum()), int((was & ~now).sum()), len(labels)
    total, discordant = num_rows + 2, gained + lost + 1
    centre = (gained - lost) / total
    half_width = NORMAL_95 * sqrt(discordant - (gained - lost) ** 2 / total) / total
    return Difference(
        value=(gained - lost) / num_rows,
        interval=(max(-1.0, centre - half_width), min(1.0, centre + half_width)),
        num_changed=int((dense != compressed).sum()),
    )


def rmse_difference(dense: NDArray[np.float64], compressed: NDArray[np.float64]) -> Difference:
    """RMSE of the squared errors `compressed` minus that of `dense`, [N] each.

    The interval is that of the mean difference of squared errors, by the normal distribution, in units of the RMSE.
    """
    rmse, squared = sqrt(dense.mean()), float(dense.mean())
    mean, half_width = mean_interval(compressed - dense)
    low, value, high = (sqrt(max(0.0, squared + change)) - rmse for change in (mean - half_width, mean, mean + half_width))
    return Difference(value=value, interval=(low, high), num_changed=None)
