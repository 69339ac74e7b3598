"""Whole runs of a regression, of rows without labels, and what their reports say beside the metric."""

from dataclasses import dataclass
from itertools import pairwise
from math import exp
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from torch import nn

from compressor import CompressionConfig, DataReference, Report, compress, inspect
from compressor.errors import InvalidConfig, MissingLabels, NotBetterThanGuessing, UnsupportedTask
from service.summary import print_summary
from tests.compressor.conftest import to_onnx

QUICK = {"epochs": 15, "second_round_epochs": 25, "fine_tune_epochs": 8, "batch_size": 64, "thresholds": [0, 2], "max_branches": 2}
BRIEF = {"epochs": 1, "second_round_epochs": 1, "fine_tune_epochs": 1, "batch_size": 64, "thresholds": [0], "max_branches": 1}
UNLABELLED = {"distillation_weight": 1}


@dataclass(frozen=True)
class RegressionJob:
    model: Path
    rows: dict[str, tuple[np.ndarray, np.ndarray]]
    data: DataReference


def fit_regression(x: np.ndarray, y: np.ndarray, sizes: tuple[int, ...]) -> list[nn.Linear]:
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    net = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    rows, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(30):
        for batch in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(rows[batch]), labels[batch]).backward()
            optimizer.step()
    return layers


@pytest.fixture(scope="module")
def regression(tmp_path_factory) -> RegressionJob:
    """Two numbers of twelve features, of which five count; noise of 0.3."""
    folder = tmp_path_factory.mktemp("regression")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2000, 12)).astype(np.float32)
    y = np.stack([2 * np.sin(2 * x[:, 0]) + x[:, 1], x[:, 2] * x[:, 3] + x[:, 4]], axis=1) + generator.normal(0, 0.3, (2000, 2))
    y = y.astype(np.float32)
    rows = {"train": (x[:1200], y[:1200]), "validation": (x[1200:1600], y[1200:1600]), "test": (x[1600:], y[1600:])}
    for name, (inputs, labels) in rows.items():
        np.savez(folder / f"{name}.npz", x=inputs, y=labels)
    onnx.save(to_onnx(fit_regression(*rows["train"], (12, 80, 40, 2))), folder / "model.onnx")
    return RegressionJob(folder / "model.onnx", rows, DataReference(**{name: str(folder / f"{name}.npz") for name in rows}))


def run(model: Path, data: DataReference | Path, out: Path, **options: object) -> Report:
    reference = data if isinstance(data, DataReference) else DataReference(train=str(data))
    return compress(model, reference, CompressionConfig.parse(options), out)


def outputs_of(model: Path, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.fixture(scope="module")
def regressed(regression, tmp_path_factory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("regressed")
    return out, run(regression.model, regression.data, out, **QUICK, max_metric_drop_relative=0.1)


def test_the_rmse_is_what_a_stranger_measures(regression, regressed):
    out, report = regressed
    x, y = regression.rows["test"]
    assert (report.metric.name, report.metric.direction, report.inputs.task) == ("rmse", "minimize", "regression")
    for model, value in ((regression.model, report.metric.dense), (out / "model.onnx", report.metric.compressed)):
        assert np.sqrt(np.square(outputs_of(model, x) - y).mean()) == pytest.approx(value.value, rel=1e-5)
        assert value.interval[0] < value.value < value.interval[1]


def test_a_regression_becomes_smaller_inside_its_budget(regression, regressed):
    _, report = regressed
    x, y = regression.rows["validation"]
    budget = report.budget
    dense = np.sqrt(np.square(outputs_of(regression.model, x) - y).mean())
    assert (budget.metric, budget.source, budget.met) == ("rmse", "client", True)
    assert budget.max_metric_drop == pytest.approx(0.1 * dense, rel=1e-5)
    assert budget.compressed_validation.value <= dense * 1.1
    assert report.weights.compression_ratio > 5
    assert report.metric.compressed.value < report.metric.control.value
    assert "at a test RMSE of" in report.verdict
    assert (report.calibration, report.classes, report.inputs.num_classes) == (None, None, None)
    assert report.difference.value == pytest.approx(report.metric.compressed.value - report.metric.dense.value)
    assert report.difference.interval[0] < report.difference.value < report.difference.interval[1]


def test_a_regression_that_misses_its_budget_fails_the_gate(regression, tmp_path):
    report = run(regression.model, regression.data, tmp_path, **BRIEF, beta=100, kl_warmup_fraction=0, max_metric_drop_relative=0)
    assert not report.gate_met
    assert "the RMSE budget was missed" in report.verdict
    assert "no point was inside the budget" in report.redundancy.evidence


def test_the_default_budget_of_a_regression_is_a_hundredth(regression, tmp_path):
    report = run(regression.model, regression.data, tmp_path, **BRIEF)
    assert report.budget.source == "default"
    assert report.budget.max_metric_drop == pytest.approx(0.01 * report.budget.dense_validation.value)
    assert any("too few to resolve" in warning for warning in report.warnings)


def test_parquet_with_a_list_of_floats_is_the_same_regression(regression, regressed, tmp_path):
    for name, (x, y) in regression.rows.items():
        kind = pa.list_(pa.float32(), 2)
        pq.write_table(pa.table({"features": list(x), "targets": pa.array(list(y), kind)}), tmp_path / f"{name}.parquet")
    data = DataReference(**{name: str(tmp_path / f"{name}.parquet") for name in regression.rows})
    report = run(regression.model, data, tmp_path / "out", **BRIEF, label_column="targets")
    assert report.metric.dense == regressed[1].metric.dense


def test_integers_are_regressed_by_an_output_of_one_number(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(600, 5)).astype(np.float32)
    y = np.round(3 * x[:, 0] + x[:, 1]).astype(np.int64)
    onnx.save(to_onnx(fit_regression(x, y[:, None].astype(np.float32), (5, 30, 1))), tmp_path / "model.onnx")
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    with pytest.raises(UnsupportedTask, match="one score for each") as caught:
        run(tmp_path / "model.onnx", tmp_path / "rows.npz", tmp_path / "out", **BRIEF)
    assert '{"task": "regression"}' in str(caught.value.suggestion)
    report = run(tmp_path / "model.onnx", tmp_path / "rows.npz", tmp_path / "out", **BRIEF, task="regression")
    assert report.metric.name == "rmse"
    found = inspect(tmp_path / "model.onnx")
    assert (found.tasks, found.num_classes) == (["regression"], None)


def test_a_regression_through_a_sigmoid_is_of_what_the_sigmoid_gives(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(800, 5)).astype(np.float32)
    y = 1 / (1 + np.exp(-2 * x[:, 0]))
    weight = np.array([[2.0], [0.02], [-0.02], [0.01], [0.0]], np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Sigmoid", ["s"], ["p"])]
    graph = helper.make_graph(
        nodes,
        "sigmoid",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
    np.savez(tmp_path / "rows.npz", x=x, y=y + generator.normal(0, 0.05, 800))
    report = run(tmp_path / "model.onnx", tmp_path / "rows.npz", tmp_path / "out", **QUICK, max_metric_drop_relative=0.2)
    assert report.budget.met
    assert report.metric.compressed.value == pytest.approx(0.05, rel=0.3)
    assert report.weights.nnz <= 2


@pytest.mark.parametrize(
    ("job", "wrong", "right"),
    [("regression", "max_metric_drop", "max_metric_drop_relative"), ("digits_job", "max_metric_drop_relative", "max_metric_drop")],
)
def test_the_budget_of_the_other_task_is_refused(job, wrong, right, request, tmp_path):
    found = request.getfixturevalue(job)
    with pytest.raises(InvalidConfig) as caught:
        run(found.model, found.data, tmp_path, **BRIEF, **{wrong: 0.1})
    assert caught.value.param == wrong
    assert right in str(caught.value.suggestion)


def test_a_regression_worse_than_the_mean_is_refused(regression, tmp_path):
    x, y = regression.rows["train"]
    np.savez(tmp_path / "rows.npz", x=x, y=y[::-1] * 0.5)
    with pytest.raises(NotBetterThanGuessing, match="labels' mean"):
        run(regression.model, tmp_path / "rows.npz", tmp_path / "out", **BRIEF)


# Rows without labels


@pytest.fixture(scope="module")
def unlabelled(digits_job, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("unlabelled") / "rows.npz"
    np.savez(path, x=digits_job.rows["train"][0])
    return path


def test_without_labels_the_uploaded_model_is_the_measure(digits_job, unlabelled, tmp_path):
    report = run(digits_job.model, unlabelled, tmp_path, **QUICK, **UNLABELLED, max_metric_drop=0.05)
    assert (report.metric.name, report.metric.dense.value, report.budget.metric) == ("agreement", 1.0, "agreement")
    assert report.budget.dense_validation.value == 1.0
    assert report.inputs.unlabelled == ["train", "validation", "test"]
    with np.load(tmp_path / "split.npz") as split:
        x = digits_job.rows["train"][0][split["test"]]
    same = outputs_of(digits_job.model, x).argmax(1) == outputs_of(tmp_path / "model.onnx", x).argmax(1)
    assert report.metric.compressed.value == pytest.approx(same.mean())
    assert report.difference.num_changed == (~same).sum()
    assert report.budget.met
    assert any("not accuracy" in warning for warning in report.warnings)
    assert "agreement with the uploaded model" in report.verdict
    assert (report.calibration, report.classes) == (None, None)


def test_a_part_that_has_labels_is_measured_by_them(digits_job, tmp_path):
    pq.write_table(pa.table({"pixels": list(digits_job.rows["train"][0])}), tmp_path / "train.parquet")
    data = DataReference(train=str(tmp_path / "train.parquet"), test=digits_job.data.test)
    report = run(digits_job.model, data, tmp_path / "out", **BRIEF, **UNLABELLED)
    x, y = digits_job.rows["test"]
    assert (report.metric.name, report.budget.metric) == ("accuracy", "agreement")
    assert report.metric.dense.value == pytest.approx((outputs_of(digits_job.model, x).argmax(1) == y).mean())
    assert report.inputs.unlabelled == ["train", "validation"]
    assert report.calibration is not None
    assert report.classes is not None


def test_labels_are_needed_where_they_count(digits_job, unlabelled, tmp_path):
    with pytest.raises(MissingLabels) as caught:
        run(digits_job.model, unlabelled, tmp_path, **BRIEF)
    assert '{"distillation_weight": 1}' in str(caught.value.suggestion)


def test_a_regression_without_labels_is_held_to_its_own_outputs(regression, tmp_path):
    x = regression.rows["train"][0]
    np.savez(tmp_path / "rows.npz", x=x)
    options = {**QUICK, **UNLABELLED, "task": "regression", "max_metric_drop_relative": 0.2}
    report = run(regression.model, tmp_path / "rows.npz", tmp_path / "out", **options)
    with np.load(tmp_path / "out" / "split.npz") as split:
        spread = outputs_of(regression.model, x[split["validation"]]).astype(np.float64).var(axis=0).mean() ** 0.5
    assert (report.metric.name, report.metric.dense.value) == ("deviation", 0.0)
    assert report.budget.max_metric_drop == pytest.approx(0.2 * spread, rel=1e-5)
    assert report.budget.met
    assert report.metric.compressed.value < 0.3 * spread


def test_pixels_without_labels_need_their_scaling(digits_job, tmp_path):
    x, y = digits_job.rows["train"]
    pixels = (x * 255).astype(np.uint8).reshape(-1, 8, 8)
    np.savez(tmp_path / "pixels.npz", x=pixels)
    with pytest.raises(InvalidConfig) as caught:
        run(digits_job.model, tmp_path / "pixels.npz", tmp_path / "out", **BRIEF, **UNLABELLED)
    assert caught.value.param == "image_scaling"
    report = run(digits_job.model, tmp_path / "pixels.npz", tmp_path / "out", **BRIEF, **UNLABELLED, image_scaling="unit")
    assert report.metric.dense.value == 1.0
    np.savez(tmp_path / "labelled.npz", x=pixels, y=y)
    data = DataReference(train=str(tmp_path / "pixels.npz"), validation=str(tmp_path / "labelled.npz"))
    assert run(digits_job.model, data, tmp_path / "out", **BRIEF, **UNLABELLED).inputs.image_scaling == "unit"


def test_a_model_that_says_the_same_of_every_row_has_nothing_to_teach(digits_job, tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.zeros((200, 64), np.float32))
    with pytest.raises(NotBetterThanGuessing, match="the same for all"):
        run(digits_job.model, tmp_path / "rows.npz", tmp_path / "out", **BRIEF, **UNLABELLED)


# Verdicts


@pytest.fixture(scope="module")
def classified(digits_job, tmp_path_factory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("classified")
    return out, run(digits_job.model, digits_job.data, out, **QUICK, max_metric_drop=0.05)


def test_calibration_classes_and_difference_are_those_of_the_test_rows(digits_job, classified):
    out, report = classified
    x, y = digits_job.rows["test"]
    scores = [outputs_of(model, x).astype(np.float64) for model in (digits_job.model, out / "model.onnx")]
    predicted = [one.argmax(1) for one in scores]
    for one, found in zip(scores, (report.calibration.dense, report.calibration.compressed), strict=True):
        p = np.exp(one - one.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        assert found.nll == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean(), rel=1e-4)
        assert found.brier == pytest.approx(np.square(p - np.eye(10)[y]).sum(1).mean(), rel=1e-4)
        assert 0 <= found.ece < 0.2
    assert [one.label for one in report.classes] == list(range(10))
    for one in report.classes:
        assert one.num_examples == (y == one.label).sum()
        assert (one.dense, one.compressed) == pytest.approx(tuple((part[y == one.label] == one.label).mean() for part in predicted))
    assert report.difference.num_changed == (predicted[0] != predicted[1]).sum()
    assert report.difference.value == pytest.approx(report.metric.compressed.value - report.metric.dense.value)


def test_signal_to_noise_is_the_other_side_of_log_alpha(classified):
    _, report = classified
    for layer in report.weights.layers:
        assert layer.snr.q05 <= layer.snr.q50 <= layer.snr.q95
        assert layer.snr.q50 == pytest.approx(exp(-layer.log_alpha.q50 / 2))
        assert layer.snr.q05 == pytest.approx(exp(-layer.log_alpha.q95 / 2))


def test_weights_of_pixels_that_never_change_do_not_count(digits_job, classified):
    _, report = classified
    x = digits_job.rows["train"][0]
    constant = (x == x[0]).all(axis=0)
    assert constant.sum() >= 3
    redundancy = report.redundancy
    assert redundancy.num_constant == constant.sum() * 60
    assert redundancy.numel == report.weights.numel - redundancy.num_constant
    first = next(layer for layer in report.weights.layers if layer.shape == (60, 64))
    assert redundancy.nnz <= report.weights.nnz
    assert redundancy.nnz >= report.weights.nnz - min(first.nnz, redundancy.num_constant)
    assert redundancy.ratio == pytest.approx(redundancy.numel / redundancy.nnz)


def test_features_are_found_behind_what_normalises_and_flattens_them(tmp_path):
    """Pixels [N, 1, 4, 4] as bytes, of which the first row of four never changes; normalised by the graph itself."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (400, 1, 4, 4), dtype=np.uint8)
    pixels[:, :, 0] = 7
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["flat"]),
        helper.make_node("Transpose", ["w"], ["turned"]),
        helper.make_node("MatMul", ["flat", "turned"], ["scores"]),
    ]
    weight = generator.normal(size=(2, 16)).astype(np.float32)
    arrays = {"w": weight, "mean": np.full((1, 1, 4, 4), 0.5, np.float32)}
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
    y = ((pixels / 255 - 0.5).reshape(400, 16) @ weight.T).argmax(1)
    np.savez(tmp_path / "rows.npz", x=pixels, y=y)
    report = run(tmp_path / "model.onnx", tmp_path / "rows.npz", tmp_path / "out", **BRIEF, image_scaling="unit")
    assert report.redundancy.num_constant == 8


def test_a_model_with_nothing_to_spare_is_told_so(tmp_path):
    """A linear map of eight features, all of which count; half of the 64 inputs are dead, which is no merit of any pruning."""
    generator = np.random.default_rng(0)
    x = np.zeros((2000, 64), np.float32)
    x[:, ::8] = generator.normal(size=(2000, 8))
    weight = generator.normal(size=(64, 4)).astype(np.float32)
    y = (x @ weight).argmax(1)
    layer = nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(3 * weight.T))
        layer.bias.zero_()
    onnx.save(to_onnx([layer]), tmp_path / "model.onnx")
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    report = run(tmp_path / "model.onnx", tmp_path / "rows.npz", tmp_path / "out", **QUICK)
    assert report.redundancy.num_constant == 56 * 4
    assert report.redundancy.ratio < 2
    assert report.weights.compression_ratio > 4
    assert not report.redundancy.over_parameterised
    assert "This model is not over-parameterised for these data: it needs 1 weight in" in report.verdict
    assert "8-bit quantisation (4 times smaller)" in report.verdict


@pytest.mark.parametrize("case", ["classified", "regressed"])
def test_the_summary_shows_it(case, request, capsys):
    out, report = request.getfixturevalue(case)
    print_summary(report, out, Console(width=200))
    shown = capsys.readouterr().out
    assert "difference, paired" in shown
    assert ("calibration error" in shown) == (case == "classified")
    assert ("rows of another class" in shown) == (case == "classified")
    assert f"{report.metric.compressed.value:.4f}" in shown
