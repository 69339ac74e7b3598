"""Which cuts a sweep tries, on a made-up network in which the metric depends on the number of weights alone."""

from types import SimpleNamespace

import pytest
import torch

from compressor.config import CompressionConfig
from compressor.search.cuts import Cut, cuts
from compressor.selection.curve import Candidate, threshold_of_count
from compressor.selection.metric import ACCURACY

NUMEL = 100_000


def sweep(fewest_inside: int, *, layers: int = 1, resolves_budget: bool = True) -> list[Candidate]:
    """All points tried, where those of `fewest_inside` weights or more are inside the budget."""
    values = torch.linspace(-8, 8, NUMEL)
    log_alpha = {f"w{index}": values[index::layers] for index in range(layers)}
    baseline = SimpleNamespace(
        kind=ACCURACY,
        dense=SimpleNamespace(value=1.0),
        max_metric_drop=0.01,
        is_inside=lambda metric: ACCURACY.is_inside(metric, 1.0, 0.01),
    )
    course = cuts(
        CompressionConfig(thresholds=[0.0, 2.0]),
        baseline,
        log_alpha,
        lambda ratio: threshold_of_count(log_alpha, int(NUMEL / ratio)),
        NUMEL,
        resolves_budget,
    )
    tried = []

    def measure(cut: Cut) -> Candidate:
        nnz = sum(int(mask.sum()) for mask in cut.masks(log_alpha).values())
        tried.append(Candidate(1.0, cut.threshold, nnz, 1.0 if nnz >= fewest_inside else 0.5, cut.layers))
        return tried[-1]

    cut = next(course)
    while True:
        try:
            cut = course.send(measure(cut))
        except StopIteration:
            return tried


@pytest.mark.parametrize("fewest_inside", [48_000, 37_000, 30_000, 20_001, 16_000])
def test_the_search_beyond_the_thresholds_ends_close_to_the_budget(fewest_inside):
    tried = sweep(fewest_inside)
    assert len(tried) <= 2 + 6
    smallest = min(point.nnz for point in tried if point.metric == 1.0)
    assert fewest_inside <= smallest <= 1.13 * fewest_inside


def test_between_thresholds_too():
    """The strictest is outside: what is looked for lies between 50,000 and 62,500."""
    tried = sweep(52_000)
    assert [point.nnz for point in tried[:2]] == [50_000, 62_500]
    assert 52_000 <= min(point.nnz for point in tried if point.metric == 1.0) <= 1.13 * 52_000


def test_nothing_beyond_the_thresholds_where_nothing_is_inside_or_validation_could_not_tell():
    assert len(sweep(NUMEL)) == 2
    assert len(sweep(1, resolves_budget=False)) == 2


def test_then_layers_are_cut_one_by_one():
    """By 0.85 of a third each; the next one starts from the smallest that was inside."""
    tried = sweep(15_000, layers=3)
    by_layer = [point for point in tried if point.layer_thresholds]
    assert len(by_layer) == 3
    assert len(by_layer[0].layer_thresholds) == 1
    inside = [point for point in tried if point.metric == 1.0]
    assert min(point.nnz for point in inside) <= 1.06 * 15_000
