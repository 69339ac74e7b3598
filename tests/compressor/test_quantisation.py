"""Values on grids: the posterior says how coarse, training takes the error back, and every quantised file holds the same model."""

import hashlib
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import compressor
from compressor import CompressionConfig, Report, compress
from compressor.artifacts import bp, csr, dense_onnx, packed_onnx
from compressor.errors import ArtifactMismatch, Diverged, InvalidArtifact, InvalidConfig
from compressor.graph.module import OnnxModule
from compressor.graph.write import float_tensors
from compressor.training.fit import fine_tune_rounded
from tests.compressor.artifacts import stranger
from tests.compressor.conftest import DigitsJob

QUICK = {"epochs": 10, "second_round_epochs": 15, "fine_tune_epochs": 8, "batch_size": 64, "thresholds": [0, 2], "max_branches": 1}


@pytest.fixture(scope="module")
def run(digits_job: DigitsJob, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report, list[str]]:
    out = tmp_path_factory.mktemp("quantised")
    config = CompressionConfig.parse({**QUICK, "max_metric_drop": 0.05, "formats": ["packed", "bp"], "posterior_sigma": True})
    phases: list[str] = []
    report = compress(digits_job.model, digits_job.data, config, out, lambda progress: phases.append(progress.phase))
    return out, report, phases


def test_the_files_are_there_and_bp_is_the_smallest(run):
    out, report, phases = run
    sizes = {file.name: file.bytes for file in report.files}
    assert sizes == {name: (out / name).stat().st_size for name in sizes}
    assert list(sizes) == ["model.onnx", "model.dense.onnx", "model.packed.onnx", "model.bp", "weights.safetensors"]
    assert sizes["model.bp"] < min(size for name, size in sizes.items() if name != "model.bp")
    assert list(dict.fromkeys(phases))[-5:] == ["control", "quantise", "write", "verify", "test"]


def test_both_quantised_files_unpack_to_the_same_tensors(run, tmp_path):
    out, _, _ = run
    found = []
    for name in ("model.bp", "model.packed.onnx"):
        compressor.unpack(out / name, tmp_path / f"{name}.onnx")
        found.append(float_tensors(onnx.load(tmp_path / f"{name}.onnx")))
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(array, found[1][name]) for name, array in found[0].items())


def test_all_values_lie_on_a_grid_and_the_error_is_that_of_the_file(run, digits_job):
    out, report, _ = run
    unpacked = onnx.ModelProto.FromString(bp.unpack(out / "model.bp"))
    for name, array in float_tensors(unpacked).items():
        values = [Fraction(float(value)) for value in np.unique(np.abs(array[array != 0]))]
        common = Fraction(math.gcd(*(value.numerator * 2**60 // value.denominator for value in values)), 2**60)
        assert max(values) / common <= 2 ** (report.quantisation.bits[name] - 1)
    x, y = digits_job.rows["test"]
    for model in ((out / "model.packed.onnx").read_bytes(), unpacked.SerializeToString()):
        scores = onnxruntime.InferenceSession(model).run(None, {"x": x})[0]
        assert (scores.argmax(1) == y).mean() == pytest.approx(report.quantisation.test.value)


def test_no_more_is_lost_than_rounding_may(run):
    _, report, _ = run
    budget = report.budget
    assert report.quantisation.validation.value >= budget.compressed_validation.value - 0.25 * budget.max_metric_drop - 1e-9
    assert report.quantisation.validation.value >= budget.dense_validation.value - budget.max_metric_drop - 1e-9
    assert report.quantisation.nnz <= report.weights.nnz


def test_the_posterior_stands_beside_the_values(run):
    out, report, _ = run
    sigmas = csr.read_sigmas(out / "weights.safetensors")
    assert sigmas.keys() == {layer.name for layer in report.weights.layers}
    for name, array in csr.read(out / "weights.safetensors").items():
        if name in sigmas:
            assert np.array_equal(sigmas[name] > 0, array != 0)
            kept = array != 0
            # A weight is kept where its noise is small beside it.
            assert np.median(sigmas[name][kept] / np.abs(array[kept])) < 1


def test_float16_values_need_no_rounding_in_training(digits_job, tmp_path):
    config = CompressionConfig.parse(
        {**QUICK, "epochs": 2, "second_round_epochs": 2, "formats": ["packed"], "packed_values": "float16", "weight_dtype": "float16"}
    )
    report = compress(digits_job.model, digits_job.data, config, tmp_path)
    assert report.quantisation is None
    exact = float_tensors(onnx.load(tmp_path / "model.onnx"))
    for name, array in packed_onnx.read(tmp_path / "model.packed.onnx").items():
        assert np.array_equal(array != 0, exact[name].astype(np.float16) != 0) or array.ndim < 2
        assert np.allclose(array, exact[name], rtol=1e-3)


def test_a_training_that_diverges_under_rounding_does_not_cost_the_run(digits_job, tmp_path, monkeypatch):
    def diverge(*_: object) -> None:
        raise Diverged("no finite number", param="step_size", suggestion="smaller steps")

    monkeypatch.setattr("compressor.quantisation.fine_tune_rounded", diverge)
    config = CompressionConfig.parse({**QUICK, "epochs": 2, "second_round_epochs": 2, "formats": ["bp", "packed"]})
    report = compress(digits_job.model, digits_job.data, config, tmp_path)
    assert report.quantisation.values == "float16"
    names = ["model.onnx", "model.dense.onnx", "model.packed.onnx", "model.bp", "weights.safetensors"]
    assert [file.name for file in report.files] == names


def test_without_any_values_to_write_there_is_a_reason_and_no_file(digits_job, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ArtifactMismatch("a fault", suggestion="None.")

    monkeypatch.setattr("compressor.delivery.files.Quantiser.run", fail)
    config = CompressionConfig.parse({**QUICK, "epochs": 2, "second_round_epochs": 2, "formats": ["bp", "packed"]})
    report = compress(digits_job.model, digits_job.data, config, tmp_path)
    assert report.quantisation is None
    assert [file.name for file in report.files] == ["model.onnx", "model.dense.onnx", "weights.safetensors"]
    assert any("no file of quantised values" in warning for warning in report.warnings)


def test_a_selection_cannot_round(run, digits_job, tmp_path):
    out, _, _ = run
    with pytest.raises(InvalidConfig) as caught:
        compressor.select(digits_job.model, out / "curve.safetensors", CompressionConfig(point=0, formats=("bp",)), tmp_path)
    assert caught.value.param == "formats"


def test_a_selection_has_the_posterior_of_its_point(run, digits_job, tmp_path):
    out, report, _ = run
    number = next(index for index, point in enumerate(report.curve) if point.chosen)
    compressor.select(digits_job.model, out / "curve.safetensors", CompressionConfig(point=number, posterior_sigma=True), tmp_path)
    for name in ("model.onnx", "model.dense.onnx", "weights.safetensors"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


LIMITED = {"max_metric_drop": 0.0, "max_epochs": 5, "max_branches": 1, "beta": 1.0}


def is_inside(report: Report) -> bool:
    budget = report.budget
    return report.quantisation.validation.value >= budget.dense_validation.value - budget.max_metric_drop - 1e-9


def wreck(module: OnnxModule, *_: object) -> None:
    with torch.no_grad():
        for tensor in module.tensors().values():
            tensor.zero_()


def run_limited(job: DigitsJob, out: Path, **options: object) -> Report:
    report = compress(job.model, job.data, CompressionConfig.parse({**LIMITED, "formats": ["packed", "bp"], **options}), out)
    assert report.budget.met
    return report


def test_a_run_with_little_time_keeps_to_its_budget(digits_job, tmp_path):
    report = run_limited(digits_job, tmp_path)
    assert is_inside(report)
    assert all(file.met for file in report.files)


def test_where_training_under_rounding_fails_8_bits_are_taken_without(digits_job, tmp_path, monkeypatch):
    def train(module: OnnxModule, round_to, objective, rows, options, on_step) -> None:
        (wreck if options.epochs else fine_tune_rounded)(module, round_to, objective, rows, options, on_step)

    monkeypatch.setattr("compressor.quantisation.fine_tune_rounded", train)
    report = run_limited(digits_job, tmp_path)
    assert (report.quantisation.values, report.quantisation.coarseness) == ("grids", 0.0)
    assert is_inside(report)
    assert max(report.quantisation.bits.values()) == 8
    check_values(tmp_path, report, digits_job)


def test_where_no_grid_will_do_values_are_float16(digits_job, tmp_path, monkeypatch):
    monkeypatch.setattr("compressor.quantisation.fine_tune_rounded", wreck)
    report = run_limited(digits_job, tmp_path)
    assert (report.quantisation.values, report.quantisation.coarseness, report.quantisation.bits) == ("float16", None, {})
    assert is_inside(report)
    assert any(warning.endswith("values in model.packed.onnx and model.bp: float16.") for warning in report.warnings)
    exact, found = (float_tensors(onnx.load(tmp_path / "model.onnx")), bp.read(tmp_path / "model.bp"))
    for name, array in exact.items():
        assert np.array_equal(found[name], array) or np.array_equal(found[name], array.astype(np.float16).astype(np.float32))
    check_values(tmp_path, report, digits_job)


def test_the_last_resort_is_what_model_onnx_holds(digits_job, tmp_path, monkeypatch):
    monkeypatch.setattr("compressor.quantisation.fine_tune_rounded", wreck)
    monkeypatch.setattr("compressor.quantisation.to_halves", lambda arrays: {name: 0 * array for name, array in arrays.items()})
    report = run_limited(digits_job, tmp_path)
    assert report.quantisation.values == "float32"
    assert is_inside(report)
    exact = float_tensors(onnx.load(tmp_path / "model.onnx"))
    for found in (bp.read(tmp_path / "model.bp"), packed_onnx.read(tmp_path / "model.packed.onnx")):
        assert found.keys() == exact.keys()
        assert all(np.array_equal(found[name], array) for name, array in exact.items())
    check_values(tmp_path, report, digits_job)


def check_values(out: Path, report: Report, job: DigitsJob) -> None:
    """Both files hold one model, whose metrics are those of the report."""
    packed, other = packed_onnx.read(out / "model.packed.onnx"), bp.read(out / "model.bp")
    assert stranger.decode((out / "model.bp").read_bytes()) == bp.unpack(out / "model.bp")
    assert packed.keys() == other.keys()
    assert all(np.array_equal(array, other[name]) for name, array in packed.items())
    for model in ((out / "model.packed.onnx").read_bytes(), bp.unpack(out / "model.bp")):
        for split, metric in (("validation", report.quantisation.validation), ("test", report.quantisation.test)):
            x, y = job.rows[split]
            scores = onnxruntime.InferenceSession(model).run(None, {"x": x})[0]
            assert (scores.argmax(1) == y).mean() == pytest.approx(metric.value)


@pytest.mark.parametrize("broken", ["write", "unpack"])
def test_a_packed_file_that_is_not_right_does_not_cost_the_run(digits_job, tmp_path, monkeypatch, broken):
    def fail(*_: object) -> None:
        raise (InvalidArtifact if broken == "unpack" else ArtifactMismatch)("a fault", param="w", suggestion="None.")

    monkeypatch.setattr(f"compressor.delivery.files.packed_onnx.{broken}", fail)
    (tmp_path / "model.packed.onnx").write_bytes(b"of an earlier run")
    report = run_limited(digits_job, tmp_path)
    assert [file.name for file in report.files] == ["model.onnx", "model.dense.onnx", "model.bp", "weights.safetensors"]
    assert not (tmp_path / "model.packed.onnx").exists()
    assert any(warning.startswith("There is no model.packed.onnx: ") and "a fault" in warning for warning in report.warnings)


def test_the_default_files_must_be_right(digits_job, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ArtifactMismatch("a fault")

    monkeypatch.setattr("compressor.delivery.files.dense_onnx.read", fail)
    with pytest.raises(ArtifactMismatch):
        run_limited(digits_job, tmp_path, formats=[])


def test_where_float16_gives_other_outputs_the_dense_form_is_float32(digits_job, tmp_path, monkeypatch):
    monkeypatch.setattr("compressor.delivery.files.HALF_TOLERANCE", 1e-9)
    report = run_limited(digits_job, tmp_path, formats=[], weight_dtype="float16")
    assert any(warning.startswith("model.dense.onnx is in float32") for warning in report.warnings)
    assert {array.dtype for array in dense_onnx.read(tmp_path / "model.dense.onnx").values()} == {np.dtype(np.float32)}
    assert report.provenance.sha256["model.dense.onnx"] == hashlib.sha256((tmp_path / "model.dense.onnx").read_bytes()).hexdigest()


def test_a_form_that_its_own_rounding_takes_out_of_the_budget_is_not_to_be_used(digits_job, tmp_path, monkeypatch):
    """float16 was asked for, so no finer values are looked for: the file is measured, and the report says what came of it."""
    good = run_limited(digits_job, tmp_path, formats=["packed"], packed_values="float16", weight_dtype="float16")
    rounded = [file for file in good.files if file.validation is not None]
    assert [file.name for file in rounded] == ["model.dense.onnx", "model.packed.onnx"]
    assert all(file.met for file in good.files)

    worst = good.budget.dense_validation.model_copy(update={"value": 0.5})
    monkeypatch.setattr("compressor.delivery.measuring.score_validation", lambda _, models, *__: [worst] * len(models))
    report = run_limited(digits_job, tmp_path, formats=["packed"], packed_values="float16", weight_dtype="float16")
    assert {file.name: file.met for file in report.files if not file.met} == {"model.dense.onnx": False, "model.packed.onnx": False}
    for name in ("model.dense.onnx", "model.packed.onnx"):
        assert "Do not use this" in next(file.advice for file in report.files if file.name == name)
        assert any(warning.startswith(f"{name}: Do not use this") for warning in report.warnings)
