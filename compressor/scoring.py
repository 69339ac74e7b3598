"""The one look at the test rows: uploaded, delivered and control model in stock ONNX Runtime, and what sets them apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.artifacts import runtime
from compressor.data.dataset import Dataset, Labels
from compressor.intake import Baseline, metric_kind, to_arrays
from compressor.report import Calibration, ClassAccuracy, Difference, Metric, MetricValue
from compressor.selection.accuracy import accuracy
from compressor.selection.calibration import RowScores, calibration, join_rows, score_rows
from compressor.selection.paired import accuracy_difference, rmse_difference
from compressor.selection.regression import rmse

_CHUNK_BYTES = 256 * 2**20
_MAX_CLASSES = 1000

Model = Path | bytes


@dataclass(frozen=True)
class TestScores:
    """What the report says of the test rows."""

    __test__ = False  # pytest

    metric: Metric
    difference: Difference
    calibration: Calibration | None
    classes: list[ClassAccuracy] | None
    quantised: MetricValue | None


def score_test(
    dense: Model, compressed: Model, control: Model, test: Dataset, baseline: Baseline, output: str, quantised: Model | None = None
) -> TestScores:
    """Metric, paired difference and calibration of the models on `test`; where it has no labels, on what `dense` gives for it.

    Args:
        output: name of the models' output.
        quantised: the compressed model with rounded values, where there is one.
    Raises: UnsupportedModel where ONNX Runtime does not run one of them.
    """
    runs = _Runs(test, baseline, output)
    models = [dense, compressed, control] + ([] if quantised is None else [quantised])
    return _score_regression(runs, models) if baseline.readout.task == "regression" else _score_classification(runs, models)


def score_validation(dense: Model, models: Sequence[Model], rows: Dataset, baseline: Baseline, output: str) -> list[MetricValue]:
    """The metric of each of `models` on the rows that the budget was measured on; arguments and errors as those of `score_test`."""
    runs = _Runs(rows, baseline, output)
    if not models:
        return []
    labels = runs.labels(dense)
    if baseline.readout.task == "regression":
        return [rmse(_squared_errors(runs, model, torch.from_numpy(labels)), "validation") for model in models]
    return [accuracy(int((_score_rows(runs, model, labels).predicted == labels).sum()), len(labels), "validation") for model in models]


class _Runs:
    def __init__(self, test: Dataset, baseline: Baseline, output: str) -> None:
        self.test = test
        self.readout = baseline.readout
        self._scaling = baseline.scaling
        self._output = output

    def labels(self, dense: Model) -> Labels:
        """The client's, or the uploaded model's predictions."""
        if self.test.labels is not None:
            return self.test.labels
        return np.concatenate([self.readout.predict(output).numpy() for _, output in self.outputs(dense)])

    def outputs(self, model: Model) -> Iterator[tuple[slice, Tensor]]:
        """Chunk by chunk: which rows, and the output for them."""
        row_bytes = 4 * sum(int(np.prod(array.shape[1:])) for array in self.test.inputs)
        size = max(1, _CHUNK_BYTES // max(1, row_bytes))
        for start in range(0, len(self.test), size):
            stop = min(start + size, len(self.test))
            rows = replace(self.test, labels=None).take(np.arange(start, stop))
            outputs = runtime.run(model, to_arrays(rows, self._scaling), output=self._output)
            yield slice(start, stop), torch.from_numpy(outputs)


def _score_classification(runs: _Runs, models: Sequence[Model]) -> TestScores:
    labels, is_labelled = runs.labels(models[0]), runs.test.labels is not None
    scores = [_score_rows(runs, model, labels) for model in models]
    values = [accuracy(int((one.predicted == labels).sum()), len(labels), "test") for one in scores]
    kind = metric_kind("classification", is_labelled=is_labelled)
    return TestScores(
        metric=Metric(name=kind.name, direction=kind.direction, dense=values[0], compressed=values[1], control=values[2]),
        difference=accuracy_difference(scores[0].predicted, scores[1].predicted, labels),
        calibration=Calibration(dense=calibration(scores[0], labels), compressed=calibration(scores[1], labels)) if is_labelled else None,
        classes=_by_class(scores[0].predicted == labels, scores[1].predicted == labels, labels) if is_labelled else None,
        quantised=values[3] if len(values) > 3 else None,
    )


def _score_regression(runs: _Runs, models: Sequence[Model]) -> TestScores:
    labels, is_labelled = torch.from_numpy(runs.labels(models[0])), runs.test.labels is not None
    found = [_squared_errors(runs, model, labels) for model in models]
    values = [rmse(one, "test") for one in found]
    kind = metric_kind("regression", is_labelled=is_labelled)
    return TestScores(
        metric=Metric(name=kind.name, direction=kind.direction, dense=values[0], compressed=values[1], control=values[2]),
        difference=rmse_difference(found[0], found[1]),
        calibration=None,
        classes=None,
        quantised=values[3] if len(values) > 3 else None,
    )


def _score_rows(runs: _Runs, model: Model, labels: Labels) -> RowScores:
    return join_rows(
        [
            score_rows(runs.readout.predict(output).numpy(), runs.readout.probabilities(output).numpy(), labels[rows])
            for rows, output in runs.outputs(model)
        ]
    )


def _squared_errors(runs: _Runs, model: Model, labels: Tensor) -> npt.NDArray[np.float64]:
    return np.concatenate([runs.readout.squared_errors(output, labels[rows]).numpy() for rows, output in runs.outputs(model)])


def _by_class(dense: npt.NDArray[np.bool_], compressed: npt.NDArray[np.bool_], labels: Labels) -> list[ClassAccuracy]:
    counts = np.bincount(labels)
    most = np.argsort(-counts, kind="stable")[:_MAX_CLASSES]
    was, now = (np.bincount(labels, weights=correct) for correct in (dense, compressed))
    return [
        ClassAccuracy(label=label, num_examples=counts[label], dense=was[label] / counts[label], compressed=now[label] / counts[label])
        for label in sorted(most.tolist())
        if counts[label]
    ]
