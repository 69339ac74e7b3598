"""The curve of metric over size of a run, and the choice of the delivered point under the budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.selection.metric import MetricKind


@dataclass(frozen=True)
class Candidate:
    """One fine-tuned point: `metric` is on validation, `nnz` counts the nonzero elements of the weight tensors."""

    beta: float
    threshold: float
    nnz: int
    metric: float


def choose(candidates: Sequence[Candidate], kind: MetricKind, dense_metric: float, max_metric_drop: float) -> Candidate:
    """The smallest point inside the budget; where none is inside, the one with the best metric (of equals, the smaller)."""
    inside = [point for point in candidates if kind.is_inside(point.metric, dense_metric, max_metric_drop)]
    if inside:
        return min(inside, key=lambda point: (point.nnz, kind.loss(dense_metric, point.metric)))
    return min(candidates, key=lambda point: (kind.loss(dense_metric, point.metric), point.nnz))
