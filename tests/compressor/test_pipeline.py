"""Whole runs on real digits: what is delivered is what was measured, the budget decides, a killed run goes on where it was."""

import json
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from compressor import CompressionConfig, DataReference, Report, compress, load_csr
from compressor.artifacts import packed_onnx, sparse_onnx
from compressor.delivery import files
from compressor.errors import CannotPack, DeviceUnavailable, Diverged, LabelOutOfRange, NotBetterThanGuessing
from compressor.graph.groups import GroupAxis
from compressor.graph.write import float_tensors
from compressor.search import search
from compressor.structure import compact
from compressor.training.rows import Rows
from tests.compressor.conftest import DigitsJob

QUICK = {"epochs": 10, "second_round_epochs": 15, "fine_tune_epochs": 4, "batch_size": 64, "thresholds": [0, 2], "max_branches": 2}


@pytest.fixture(scope="module")
def delivered(digits_job: DigitsJob, tmp_path_factory):
    out = tmp_path_factory.mktemp("delivered")
    lines = []
    config = CompressionConfig.parse({**QUICK, "max_metric_drop": 0.05})
    return out, compress(digits_job.model, digits_job.data, config, out, lines.append), lines


def test_the_report_says_what_a_stranger_measures_with_onnxruntime_alone(delivered, digits_job):
    out, report, _ = delivered
    x, y = digits_job.rows["test"]
    for path, value in ((digits_job.model, report.metric.dense), (out / "model.onnx", report.metric.compressed)):
        scores = onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
        assert (scores.argmax(axis=1) == y).mean() == pytest.approx(value.value)
        assert value.num_examples == len(y)


def test_bytes_and_nonzeros_are_those_of_the_files(delivered, digits_job):
    out, report, _ = delivered
    assert report.bytes.dense == digits_job.model.stat().st_size
    assert report.bytes.artifacts == {path.name: path.stat().st_size for path in out.iterdir() if path.name != "report.json"}
    graph = onnx.load(out / "model.onnx").graph
    sparse = {node.output[0]: node.attribute[0].sparse_tensor for node in graph.node if node.op_type == "Constant"}
    counts = {name: len(tensor.indices.int64_data) for name, tensor in sparse.items() if len(tensor.dims) >= 2}
    assert {layer.name: layer.nnz for layer in report.weights.layers if layer.name in counts} == counts
    assert report.weights.nnz == sum(layer.nnz for layer in report.weights.layers)
    assert report.weights.numel == 64 * 60 + 60 * 30 + 30 * 10
    assert report.weights.compression_ratio > 4
    assert report.bytes.size_ratio > 2


def test_csr_checkpoint_holds_the_weights_of_the_model(delivered):
    out, report, _ = delivered
    matrices = load_csr(out / "weights.safetensors")
    assert {name: matrix.nnz for name, matrix in matrices.items()} == {layer.name: layer.nnz for layer in report.weights.layers}


def test_the_report_on_disk_is_the_report(delivered):
    out, report, _ = delivered
    assert Report.model_validate_json((out / "report.json").read_bytes()) == report
    forms = {"model.onnx", "model.dense.onnx", "weights.safetensors"}
    assert {path.name for path in out.iterdir()} == forms | {"curve.safetensors", "split.npz", "report.json"}
    assert {form.name for form in report.files} == forms


def test_progress_never_falls_and_passes_every_phase_in_order(delivered):
    _, _, lines = delivered
    shares = [line.progress for line in lines]
    assert shares == sorted(shares)
    phases = list(dict.fromkeys(line.phase for line in lines))
    assert phases == ["validate", "load", "evaluate", "probe", "fit", "sweep", "control", "write", "verify", "test"]
    assert shares[-1] > 0.97


def test_with_no_validation_and_test_a_tenth_each_is_carved_and_said(digits_job, tmp_path):
    config = CompressionConfig.parse({**QUICK, "epochs": 2, "second_round_epochs": 2, "max_branches": 1})
    report = compress(digits_job.model, DataReference(train=digits_job.data.train), config, tmp_path)
    assert report.inputs.carved == ["validation", "test"]
    assert (report.inputs.num_train, report.inputs.num_validation, report.inputs.num_test) == (861, 108, 108)
    assert any("probably seen" in warning for warning in report.warnings)
    with np.load(tmp_path / "split.npz") as split:
        assert sorted(np.concatenate([split[name] for name in split.files])) == list(range(1077))


@pytest.mark.parametrize(("budget", "source", "gate_met"), [(0.0, "client", False), (None, "default", True)])
def test_a_missed_budget_fails_the_gate_only_where_the_client_set_it(digits_job, tmp_path, budget, source, gate_met):
    """One epoch at an absurd KL weight leaves no usable point; the most accurate one is delivered all the same."""
    config = CompressionConfig.parse({**QUICK, "epochs": 12, "beta": 100, "kl_warmup_fraction": 0, "max_metric_drop": budget})
    report = compress(digits_job.model, digits_job.data, config, tmp_path)
    assert (report.budget.met, report.budget.source, report.gate_met) == (False, source, gate_met)
    assert "budget was missed" in report.verdict
    assert [branch.beta for branch in report.branches] == pytest.approx([100.0, 31.6], rel=1e-2)
    assert report.branches[0].num_points == 0, "a hopeless branch is given up"
    assert {point.beta for point in report.curve} == {report.branches[1].beta}
    assert (tmp_path / "model.onnx").exists()
    best = max(point.metric for point in report.curve)
    assert report.budget.compressed_validation.value >= best - 1e-9


BRIEF = {**QUICK, "epochs": 3, "second_round_epochs": 3, "max_branches": 1}


def test_what_cannot_be_had_does_not_cost_the_run(digits_job, tmp_path, monkeypatch):
    """A smaller graph that is not the same, a form that is another model, and one that cannot be written."""

    def miscut(model, arrays):
        found = compact(model, arrays)
        tensor = next(tensor for tensor in found.model.graph.initializer if len(tensor.dims) == 2)
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        return found

    def write_another(path, model, grids):
        packed_onnx.write(path, model, {name: replace(grid, step=2 * grid.step) for name, grid in grids.items()})

    def refuse(*_):
        raise CannotPack("It is too large.", suggestion="Take another.")

    monkeypatch.setattr(files, "compact", miscut)
    monkeypatch.setattr(files, "packed_onnx", SimpleNamespace(**vars(packed_onnx) | {"write": write_another}))
    monkeypatch.setattr(files.bp, "write", refuse)
    report = compress(digits_job.model, digits_job.data, CompressionConfig.parse({**BRIEF, "formats": ["bp", "packed"]}), tmp_path)

    for what in (
        "Dead units are still in the graph",
        "There is no model.packed.onnx: model.packed.onnx: the tensor",
        "There is no model.bp: It",
    ):
        assert any(warning.startswith(what) for warning in report.warnings), what
    assert {form.name for form in report.files} == {"model.onnx", "model.dense.onnx", "weights.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {*report.bytes.artifacts, "report.json"}
    shapes = {name: array.shape for name, array in sparse_onnx.read(tmp_path / "model.onnx").items() if array.ndim == 2}
    assert shapes == {name: array.shape for name, array in float_tensors(onnx.load(digits_job.model)).items() if array.ndim == 2}


def test_a_target_ratio_is_delivered_whatever_the_metric_and_the_others_stand_on_the_curve(digits_job, tmp_path):
    config = CompressionConfig.parse({**BRIEF, "target_ratio": 20, "curve_ratios": [5, 10]})
    report = compress(digits_job.model, digits_job.data, config, tmp_path)
    for point, ratio in zip(report.curve, (20, 10, 5), strict=True):
        assert ratio <= point.compression_ratio <= 1.02 * ratio, "weights on no path are not among those that are kept"
    assert report.weights.compression_ratio == report.curve[0].compression_ratio
    assert report.gate_met


@pytest.mark.parametrize(
    ("options", "missed"),
    [
        ({"min_ratio": 5, "target_ratio": 10}, []),
        ({"min_ratio": 50, "target_ratio": 10}, ["min_ratio"]),
        ({"max_bytes": 100, "max_latency_ms": 1e-6}, ["max_bytes", "max_latency_ms"]),
        ({"max_bytes": 10**9, "max_latency_ms": 1e6}, []),
    ],
)
def test_gates_are_held_against_the_delivered_file(digits_job, tmp_path, options, missed):
    report = compress(digits_job.model, digits_job.data, CompressionConfig.parse({**BRIEF, **options}), tmp_path)
    assert report.missed_gates == missed
    assert report.gate_met == (not missed)
    assert {gate.name for gate in report.gates} == set(options)
    for gate in report.gates:
        if gate.name == "max_bytes":
            assert gate.value == (tmp_path / "model.onnx").stat().st_size


@pytest.mark.parametrize("options", [{}, {"control": "full"}, {"beta": 100, "kl_warmup_fraction": 0}, {"max_epochs": 5}])
def test_the_run_keeps_to_max_epochs(digits_job, tmp_path, monkeypatch, options):
    """Counted where rows are drawn; 60 steps or so of the probe come on top."""
    rows = 0
    draw = Rows.draw

    def counted(self, index):
        nonlocal rows
        rows += len(index)
        return draw(self, index)

    monkeypatch.setattr(Rows, "draw", counted)
    config = CompressionConfig.parse({**QUICK, "max_branches": 3, "max_metric_drop": 0.0, "max_epochs": 20, **options})
    report = compress(digits_job.model, digits_job.data, config, tmp_path)
    assert rows <= (config.max_epochs + 60 / 17) * report.inputs.num_train
    assert report.curve


@pytest.mark.parametrize(
    ("options", "betas"),
    [
        ({"max_metric_drop": 0.1}, [0.03, 0.095, 0.3, 1.0]),
        ({}, [0.03, 0.095, 0.3]),  # beyond which validation rows are too few to tell what would be too much
        ({"max_branches": 2}, [0.03, 0.095]),
        ({"max_epochs": 20}, [0.03]),
    ],
)
def test_the_first_branch_climbs_while_the_budget_holds_and_there_is_time(digits_job, tmp_path, options, betas):
    usual = {**QUICK, "beta": 0.03, "max_branches": 5, "max_metric_drop": 0.02, "epochs": 3, "second_round_epochs": 3}
    config = CompressionConfig.parse(usual | options)
    seen = []
    report = compress(digits_job.model, digits_job.data, config, tmp_path, lambda progress: seen.append(progress.metrics.get("beta")))
    assert [beta for beta in dict.fromkeys(seen) if beta is not None] == pytest.approx(betas, rel=0.01)
    assert [branch.beta for branch in report.branches] == pytest.approx(betas[-1:], rel=0.01)
    assert {point.beta for point in report.curve} == {report.branches[0].beta}
    assert report.training.epochs == [3, 3]


def test_the_first_branch_does_not_climb_where_its_first_round_loses_too_much(digits_job, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_KEPT_AFTER_A_ROUND", -20.0)  # nothing is left of a model after a round
    config = CompressionConfig.parse(
        {**QUICK, "beta": 0.03, "epochs": 2, "second_round_epochs": 2, "max_branches": 3, "max_metric_drop": 0.02}
    )
    report = compress(digits_job.model, digits_job.data, config, tmp_path)
    assert report.branches[0].beta == 0.03


def diverging_fit(monkeypatch, diverges):
    """Every fit whose options are such comes to no end."""
    original = search.fit_posterior

    def fit(*args, **given):
        if diverges(args[6]):
            raise Diverged("not finite", param="step_size", suggestion="")
        return original(*args, **given)

    monkeypatch.setattr(search, "fit_posterior", fit)


def test_a_control_that_diverges_loses_nothing(digits_job, tmp_path, monkeypatch):
    original = search.train_control

    def control(*args):
        if args[3] > 0:
            raise Diverged("not finite", param="step_size", suggestion="")
        return original(*args)

    monkeypatch.setattr(search, "train_control", control)
    options = {"beta": 0.3, "max_branches": 2, "max_metric_drop": 0.1, "epochs": 4, "second_round_epochs": 4}
    report = compress(digits_job.model, digits_job.data, CompressionConfig.parse({**QUICK, **options}), tmp_path)
    assert report.delivered == "variational"
    assert report.budget.met
    assert report.curve


def test_a_second_branch_that_diverges_leaves_the_points_of_the_first(digits_job, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_HOPELESS_DROP", 1.0)
    diverging_fit(monkeypatch, lambda options: options.beta < 20)
    options = {"beta": 50, "max_branches": 2, "max_metric_drop": 0.0, "epochs": 4, "second_round_epochs": 4}
    report = compress(digits_job.model, digits_job.data, CompressionConfig.parse({**QUICK, **options}), tmp_path)
    assert [branch.beta for branch in report.branches] == pytest.approx([50, 15.8], rel=0.01)
    assert {point.beta for point in report.curve} == {50}


def test_a_branch_that_diverges_where_it_has_climbed_to_goes_back_down(digits_job, tmp_path, monkeypatch):
    diverging_fit(monkeypatch, lambda options: options.beta > 0.5)
    options = {"beta": 0.3, "max_branches": 2, "max_metric_drop": 0.1, "epochs": 4, "second_round_epochs": 4, "step_size": 0.02}
    report = compress(digits_job.model, digits_job.data, CompressionConfig.parse({**QUICK, **options}), tmp_path)
    assert report.delivered == "variational"
    assert report.budget.met
    assert [branch.beta for branch in report.branches] == pytest.approx([1.0, 0.316], rel=0.01)
    assert {point.beta for point in report.curve} == {report.branches[1].beta}


@pytest.mark.parametrize("ratio", [1.3, 1.6, 2.0])
def test_a_target_ratio_is_met_where_few_units_are_dead(digits_job, tmp_path, ratio):
    """Too few for a smaller network to pay; weights that lead nowhere must not count as kept all the same."""
    options = {"target_ratio": ratio, "epochs": 2, "second_round_epochs": 0, "max_branches": 1}
    report = compress(digits_job.model, digits_job.data, CompressionConfig.parse({**QUICK, **options}), tmp_path)
    assert report.gate_met
    assert report.weights.compression_ratio == pytest.approx(ratio, rel=0.02)


def test_the_run_keeps_to_max_seconds_about(digits_job, tmp_path):
    config = CompressionConfig.parse({"epochs": 300, "second_round_epochs": 600, "max_seconds": 6, "max_branches": 1})
    started = time.monotonic()
    report = compress(digits_job.model, digits_job.data, config, tmp_path)
    assert time.monotonic() - started < 15
    assert report.curve


def test_the_full_control_prunes_step_by_step_to_the_same_size(digits_job, tmp_path):
    metrics = {}
    for control in ("quick", "full"):
        config = CompressionConfig.parse({**QUICK, "max_branches": 1, "target_ratio": 20, "control": control})
        report = compress(digits_job.model, digits_job.data, config, tmp_path / control)
        metrics[control] = report.metric.control.value
        assert report.weights.compression_ratio == pytest.approx(20, rel=1e-2)
    assert metrics["full"] > metrics["quick"]


def test_where_magnitude_wins_on_validation_it_is_delivered(digits_job, tmp_path):
    """An absurd KL weight for two epochs ruins the survivors; the largest weights of the dense model are better at any size."""
    spoilt = {"epochs": 2, "beta": 100, "kl_warmup_fraction": 0, "log_alpha_init": -4, "thresholds": [-2], "fine_tune_epochs": 1}
    report = compress(digits_job.model, digits_job.data, CompressionConfig.parse({**QUICK, **spoilt, "max_branches": 1}), tmp_path)
    assert report.delivered == "magnitude"
    assert report.metric.compressed == report.metric.control
    assert report.weights.nnz == report.curve[0].nnz
    assert report.budget.compressed_validation.value > report.curve[0].metric


def test_same_seed_same_files(digits_job, tmp_path):
    config = CompressionConfig.parse({**QUICK, "epochs": 2, "second_round_epochs": 3, "max_branches": 1})
    for name in ("a", "b"):
        compress(digits_job.model, digits_job.data, config, tmp_path / name)
    for artifact in ("model.onnx", "model.dense.onnx", "weights.safetensors", "curve.safetensors", "split.npz"):
        assert (tmp_path / "a" / artifact).read_bytes() == (tmp_path / "b" / artifact).read_bytes()


class Killed(Exception):
    pass


TWO_BRANCHES = {"epochs": 3, "second_round_epochs": 3, "max_branches": 2, "max_metric_drop": 0.0, "beta": 50}
# Cuts beyond the strictest threshold of which the last is outside the budget, and layers cut by themselves after it.
FURTHER = {"epochs": 2, "second_round_epochs": 2, "fine_tune_epochs": 0, "max_branches": 1, "max_metric_drop": 0.025, "beta": 0.3}
CLIMBING = {"epochs": 2, "second_round_epochs": 2, "fine_tune_epochs": 1, "max_branches": 3, "max_metric_drop": 0.02, "beta": 0.03}


@pytest.mark.parametrize(("options", "kills"), [(TWO_BRANCHES, [1, 3, 6, 9, 11]), (FURTHER, range(1, 14)), (CLIMBING, range(1, 10))])
def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_files(digits_job, tmp_path, monkeypatch, options, kills):
    monkeypatch.setattr("compressor.training.checkpoint._SAVE_EVERY_S", 0.0)
    config = CompressionConfig.parse({**QUICK, **options})
    saved = 0

    def count(kill_at: int = 0) -> None:
        nonlocal saved
        saved += 1
        if saved == kill_at:
            raise Killed

    compress(digits_job.model, digits_job.data, config, tmp_path / "whole", checkpoint=tmp_path / "whole.safetensors", on_checkpoint=count)
    assert saved >= max(kills)
    for kill_at in kills:
        checkpoint, saved = tmp_path / f"{kill_at}.safetensors", 0
        kill = partial(count, kill_at)
        with pytest.raises(Killed):
            compress(digits_job.model, digits_job.data, config, tmp_path / "out", checkpoint=checkpoint, on_checkpoint=kill)
        compress(digits_job.model, digits_job.data, config, tmp_path / "out", checkpoint=checkpoint)
        for artifact in ("model.onnx", "weights.safetensors", "curve.safetensors"):
            assert (tmp_path / "whole" / artifact).read_bytes() == (tmp_path / "out" / artifact).read_bytes(), kill_at


def test_a_checkpoint_of_another_run_is_not_resumed(digits_job, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    for seed in (0, 1):
        epochs = []
        config = CompressionConfig.parse({**QUICK, "epochs": 1, "second_round_epochs": 1, "max_branches": 1, "seed": seed})
        compress(
            digits_job.model,
            digits_job.data,
            config,
            tmp_path / "out",
            lambda progress, epochs=epochs: epochs.append(progress.metrics.get("epoch")),
            checkpoint=checkpoint,
        )
        assert 1.0 in epochs


def test_shuffled_labels_lead_to_an_empty_network(digits_job, tmp_path):
    """There is nothing to learn, so the evidence keeps no weight: the posterior cannot memorise labels, as a point estimate can."""
    x, y = digits_job.rows["train"]
    np.savez(tmp_path / "shuffled.npz", x=x, y=np.random.default_rng(0).permutation(y))
    data = DataReference(train=str(tmp_path / "shuffled.npz"))
    config = CompressionConfig.parse(
        {
            "require_better_than_guessing": False,
            "distillation_weight": 0,
            "max_branches": 1,
            "beta": 1,
            "epochs": 20,
            "second_round_epochs": 40,
            "fine_tune_epochs": 1,
        }
    )
    report = compress(digits_job.model, data, config, tmp_path / "out")
    smallest = min(report.curve, key=lambda point: point.threshold)
    assert smallest.threshold == 0
    assert smallest.nnz <= 0.001 * report.weights.numel


def test_a_model_that_knows_nothing_is_refused_with_what_to_check(digits_job, tmp_path):
    x, y = digits_job.rows["train"]
    np.savez(tmp_path / "shuffled.npz", x=x, y=np.random.default_rng(0).permutation(y))
    with pytest.raises(NotBetterThanGuessing) as error:
        compress(digits_job.model, DataReference(train=str(tmp_path / "shuffled.npz")), CompressionConfig(), tmp_path / "out")
    assert error.value.param == "dataset"
    assert "image_scaling" in str(error.value.suggestion)


def test_errors_of_the_data_come_before_any_training(digits_job, tmp_path):
    x, y = digits_job.rows["train"]
    np.savez(tmp_path / "labels.npz", x=x, y=y + 5)
    phases = []
    with pytest.raises(LabelOutOfRange):
        compress(
            digits_job.model,
            DataReference(train=str(tmp_path / "labels.npz")),
            CompressionConfig(),
            tmp_path / "out",
            lambda progress: phases.append(progress.phase),
        )
    assert phases == ["validate", "load"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused(digits_job, tmp_path):
    with pytest.raises(DeviceUnavailable):
        compress(digits_job.model, digits_job.data, CompressionConfig(device="cuda"), tmp_path)


def test_report_schema_is_published_as_it_is():
    """compressor/report.schema.json is what consumers validate against; it is made by `make schema`."""
    from importlib.resources import files

    assert json.loads(files("compressor").joinpath("report.schema.json").read_text()) == Report.model_json_schema()


def test_what_was_delivered_can_be_compressed_again(delivered, digits_job, tmp_path):
    out, first, _ = delivered
    assert any(node.op_type == "Constant" for node in onnx.load(out / "model.onnx").graph.node)
    config = CompressionConfig.parse({**QUICK, "max_metric_drop": 0.05, "max_branches": 1})
    second = compress(out / "model.onnx", digits_job.data, config, tmp_path / "again")
    assert second.metric.dense.value == first.metric.compressed.value
    left = {name: array for name, array in sparse_onnx.read(out / "model.onnx").items() if array.ndim >= 2}
    assert second.weights.numel == sum(array.size for array in left.values()) <= first.weights.numel
    assert second.weights.nnz <= first.weights.nnz
    assert load_csr(tmp_path / "again" / "weights.safetensors").keys() == load_csr(out / "weights.safetensors").keys()


@pytest.mark.parametrize(("group_prior", "axes"), [("none", None), ("ard", {f"layer{index}.weight": GroupAxis(0) for index in range(3)})])
def test_the_search_fits_under_the_priors_of_the_config(digits_job, tmp_path, monkeypatch, group_prior, axes):
    seen = []

    def record(_, prior, num_data, group_axes, num_steps):
        assert num_steps == QUICK["epochs"] * 17
        seen.append((prior, num_data, group_axes))
        raise Killed

    monkeypatch.setattr("compressor.search.search.NegativeElbo", record)
    priors = {"prior": "log_uniform_exact", "group_prior": group_prior, "log_alpha_init": -3, "step_size": 0.01}
    with pytest.raises(Killed):
        compress(digits_job.model, digits_job.data, CompressionConfig.parse({**QUICK, **priors}), tmp_path)
    assert seen == [("log_uniform_exact", 1077, axes)]
