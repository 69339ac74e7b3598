"""Values on grids: the posterior says how coarse, training takes the error back, and every quantised file holds the same model."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import compressor
from compressor import CompressionConfig, Report, compress
from compressor.artifacts import bp, csr, packed_onnx
from compressor.errors import Diverged, InvalidConfig
from compressor.graph.write import float_tensors
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
