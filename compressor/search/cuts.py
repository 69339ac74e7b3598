"""Where to cut: which thresholds, and of which layers, a sweep tries one after the other, by what became of those before."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from compressor.config import CompressionConfig
from compressor.intake import Baseline
from compressor.selection.curve import Candidate, choose, threshold_of_count

_FURTHER, _FURTHER_AT_LEAST, _MAX_FURTHER = 1.25, 1.08, 6  # beyond the smallest point inside the budget, as factors, and how often
_LARGEST_LAYERS, _LAYER_PART = 3, 0.85  # what is left of a layer that is cut by itself


@dataclass(frozen=True)
class Cut:
    """Weights are kept whose log_alpha is below `threshold`, or below that of their own tensor in `layers`."""

    threshold: float
    layers: dict[str, float] = field(default_factory=dict)

    def masks(self, log_alpha: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """True = keep, by name."""
        return {name: values < self.layers.get(name, self.threshold) for name, values in log_alpha.items()}


Cuts = Generator[Cut, Candidate | None, None]


def cuts(
    config: CompressionConfig,
    baseline: Baseline,
    log_alpha: Mapping[str, Tensor],
    threshold_of_ratio: Callable[[float], float],
    numel: int,
    resolves_budget: bool,
) -> Cuts:
    """Yields cuts; is sent the point that came of each, or None where it was not worth one. The same points lead to the same cuts.

    Args:
        log_alpha: by name; infinite where a weight is gone.
        threshold_of_ratio: the threshold that leaves a model of this compression ratio.
        numel: weights of the uploaded model.
        resolves_budget: whether validation tells models inside the budget from others; if not, only what is asked for is tried.
    """
    found: list[Candidate] = []
    asked = [threshold_of_ratio(ratio) for ratio in sorted({*config.curve_ratios} - {config.target_ratio}, reverse=True)]
    wanted = [threshold_of_ratio(config.target_ratio)] if config.target_ratio is not None else sorted(config.thresholds)
    for threshold in (*wanted, *asked):
        found += _some((yield Cut(threshold)))
    if config.target_ratio is not None or not resolves_budget or not found:
        return
    for _ in range(_MAX_FURTHER):
        sizes = [point.nnz for point in found if baseline.is_inside(point.metric)]
        if not sizes:
            break
        outside = [point.nnz for point in found if point.nnz < min(sizes)]
        factor = min(_FURTHER, math.sqrt(min(sizes) / max(1, *outside))) if outside else _FURTHER
        if factor < _FURTHER_AT_LEAST:
            break
        point = yield Cut(threshold_of_ratio(numel / max(1, min(sizes)) * factor))
        if point is None:
            break
        found.append(point)
    if len(log_alpha) > 1 and any(baseline.is_inside(point.metric) for point in found):
        for name in sorted(log_alpha, key=lambda name: -log_alpha[name].numel())[:_LARGEST_LAYERS]:
            best = choose(found, baseline.kind, baseline.dense.value, baseline.max_metric_drop)
            kept = int((log_alpha[name] < best.layer_thresholds.get(name, best.threshold)).sum())
            if kept:
                stricter = threshold_of_count({name: log_alpha[name]}, int(_LAYER_PART * kept))
                found += _some((yield Cut(best.threshold, best.layer_thresholds | {name: stricter})))


def _some(point: Candidate | None) -> list[Candidate]:
    return [] if point is None else [point]
