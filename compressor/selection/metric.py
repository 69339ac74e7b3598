"""What is measured of a model, and which of two values is the better one."""

from dataclasses import dataclass
from typing import Literal

from compressor.report import MetricName

_SLACK = 1e-9  # 0.97 - 0.005 is not 0.965 in binary


@dataclass(frozen=True)
class MetricKind:
    """A metric.

    Attributes:
        name: accuracy and rmse are measured on labels, agreement and deviation, their likes, on what the uploaded model gave for the rows.
        direction: of what is better.
        bounded: whether it is a fraction in [0, 1].
    """

    name: MetricName
    direction: Literal["maximize", "minimize"]
    bounded: bool

    def loss(self, dense: float, metric: float) -> float:
        """How much worse than `dense` the metric is, in its own unit; negative where it is better."""
        return dense - metric if self.direction == "maximize" else metric - dense

    def is_better(self, metric: float, other: float) -> bool:
        return self.loss(other, metric) < 0

    def is_inside(self, metric: float, dense: float, max_drop: float) -> bool:
        """Whether no more than `max_drop` is lost, in the metric's unit; with a hair of slack."""
        return self.loss(dense, metric) <= max_drop + _SLACK * (1.0 if self.bounded else abs(dense) + max_drop)


ACCURACY = MetricKind("accuracy", "maximize", bounded=True)
AGREEMENT = MetricKind("agreement", "maximize", bounded=True)
RMSE = MetricKind("rmse", "minimize", bounded=False)
DEVIATION = MetricKind("deviation", "minimize", bounded=False)

KINDS = {kind.name: kind for kind in (ACCURACY, AGREEMENT, RMSE, DEVIATION)}
