"""The curve of metric over size of a run, and the choice of the delivered point under the budget."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from compressor.selection.metric import MetricKind


@dataclass(frozen=True)
class Candidate:
    """One fine-tuned point: `metric` is on validation, `nnz` counts the nonzero elements of the weight tensors.

    A weight is kept where its log_alpha is below `threshold`, or below that of its own tensor in `layer_thresholds`.
    """

    beta: float
    threshold: float
    nnz: int
    metric: float
    layer_thresholds: dict[str, float] = field(default_factory=dict)


class Point(Protocol):
    """What a choice goes by: a candidate of the search, or a point of its report."""

    @property
    def nnz(self) -> int: ...

    @property
    def metric(self) -> float: ...


AnyPoint = TypeVar("AnyPoint", bound=Point)


def choose(points: Sequence[AnyPoint], kind: MetricKind, dense_metric: float, max_metric_drop: float) -> AnyPoint:
    """The smallest point inside the budget; where none is inside, the one with the best metric (of equals, the smaller)."""
    inside = [point for point in points if kind.is_inside(point.metric, dense_metric, max_metric_drop)]
    if inside:
        return min(inside, key=lambda point: (point.nnz, kind.loss(dense_metric, point.metric)))
    return min(points, key=lambda point: (kind.loss(dense_metric, point.metric), point.nnz))


def nearest(points: Sequence[AnyPoint], kind: MetricKind, numel: int, ratio: float) -> AnyPoint:
    """The point whose compression ratio comes closest, as a factor; of equals, the one with the better metric."""
    return min(points, key=lambda point: (abs(math.log(numel / max(1, point.nnz) / ratio)), kind.loss(0.0, point.metric)))


def threshold_of_count(log_alpha: Mapping[str, Tensor], count: int) -> float:
    """The threshold below which exactly `count` weights lie, those of lowest log_alpha; where several are equal there, fewer."""
    values = torch.cat([tensor.flatten() for tensor in log_alpha.values()])
    if count >= len(values):
        return float("inf")
    return float(values.kthvalue(count + 1).values)
