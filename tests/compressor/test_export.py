"""Every point of a real curve can be exported, and is what the curve says; what fits no curve is refused."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compressor import CompressionConfig, Report, Selection, compress, load_csr, select
from compressor.errors import InvalidArtifact, InvalidConfig
from tests.compressor.conftest import DigitsJob

QUICK = {
    "epochs": 8,
    "second_round_epochs": 8,
    "fine_tune_epochs": 3,
    "batch_size": 64,
    "thresholds": [0, 2, 4],
    "max_branches": 1,
    "output": "scores",
}


@pytest.fixture(scope="module")
def run(digits_job: DigitsJob, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("run")
    return out, compress(digits_job.model, digits_job.data, CompressionConfig.parse(QUICK), out)


def test_every_point_has_the_metric_that_the_curve_shows(digits_job: DigitsJob, run: tuple[Path, Report], tmp_path: Path) -> None:
    folder, report = run
    x, y = digits_job.rows["validation"]
    assert len(report.curve) > 2
    for number, point in enumerate(report.curve):
        out = tmp_path / str(number)
        selection = select(digits_job.model, folder / "curve.safetensors", CompressionConfig(point=number), out)
        assert (selection.number, selection.point) == (number, point)
        scores = onnxruntime.InferenceSession(out / "model.onnx").run(None, {"x": x})[0]
        assert (scores.argmax(axis=1) == y).mean() == pytest.approx(point.metric, abs=1e-12)
        assert selection.weights.nnz == point.nnz == sum(matrix.nnz for matrix in load_csr(out / "weights.safetensors").values())
        assert selection.weights.compression_ratio == pytest.approx(point.compression_ratio)
        onnx.checker.check_model(onnx.load(out / "model.onnx"), full_check=True)
        forms = {"model.dense.onnx", "model.onnx", "weights.safetensors"}
        assert selection.bytes.artifacts == {name: (out / name).stat().st_size for name in forms}
        assert Selection.model_validate_json((out / "selection.json").read_bytes()) == selection
        assert {path.name for path in out.iterdir()} == forms | {"selection.json"}


def test_the_run_lists_its_curve_and_the_chosen_point_is_the_delivered_one(
    digits_job: DigitsJob, run: tuple[Path, Report], tmp_path: Path
) -> None:
    folder, report = run
    assert report.bytes.artifacts["curve.safetensors"] == (folder / "curve.safetensors").stat().st_size
    chosen = [number for number, point in enumerate(report.curve) if point.chosen]
    assert (len(chosen) == 1) == (report.delivered == "variational")
    for number in chosen:
        selection = select(digits_job.model, folder / "curve.safetensors", CompressionConfig(point=number), tmp_path)
        for name in ("model.onnx", "weights.safetensors"):
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
            assert selection.sha256[name] == report.provenance.sha256[name]
        assert selection.sha256["model"] == report.provenance.sha256["model"]
        assert selection.sha256["curve"] == report.provenance.sha256["curve.safetensors"]
        assert selection.dense_metric == report.budget.dense_validation.value


def test_a_ratio_takes_the_nearest_point_and_a_budget_the_smallest_inside(
    digits_job: DigitsJob, run: tuple[Path, Report], tmp_path: Path
) -> None:
    folder, report = run

    def selected(**choice: float) -> Selection:
        return select(digits_job.model, folder / "curve.safetensors", CompressionConfig.parse(choice), tmp_path)

    for point in report.curve:
        assert selected(target_ratio=max(1.01, point.compression_ratio)).point.nnz == point.nnz
    assert selected(target_ratio=1e9).point.nnz == min(point.nnz for point in report.curve)
    assert selected(max_metric_drop=0.99).point.nnz == min(point.nnz for point in report.curve)
    dense, best = report.budget.dense_validation.value, max(point.metric for point in report.curve)
    allowed = max(0.0, dense - best)
    inside = [point.nnz for point in report.curve if point.metric >= dense - allowed - 1e-9]
    assert selected(max_metric_drop=allowed).point.nnz == min(inside)
    if allowed:
        with pytest.raises(InvalidConfig) as caught:
            selected(max_metric_drop=0.0)
        assert caught.value.param == "max_metric_drop"


@pytest.mark.parametrize(
    ("config", "param"),
    [
        ({}, "point"),
        ({"point": 0, "target_ratio": 4.0}, "target_ratio"),
        ({"max_metric_drop": 0.1, "target_ratio": 4.0}, "max_metric_drop"),
        ({"point": 1000}, "point"),
    ],
)
def test_a_choice_is_exactly_one_that_there_is(
    digits_job: DigitsJob, run: tuple[Path, Report], tmp_path: Path, config: dict[str, float], param: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        select(digits_job.model, run[0] / "curve.safetensors", CompressionConfig.parse(config), tmp_path / "out")
    assert caught.value.param == param
    assert not (tmp_path / "out").exists()


def test_a_run_names_no_point(digits_job: DigitsJob, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="over") as caught:
        compress(digits_job.model, digits_job.data, CompressionConfig(point=0), tmp_path)
    assert caught.value.param == "point"


def test_a_curve_of_another_model_is_refused(digits_job: DigitsJob, run: tuple[Path, Report], tmp_path: Path) -> None:
    other = onnx.load(digits_job.model)
    other.producer_name = "another"
    onnx.save(other, tmp_path / "other.onnx")
    for model, curve in ((tmp_path / "other.onnx", run[0] / "curve.safetensors"), (digits_job.model, run[0] / "weights.safetensors")):
        with pytest.raises(InvalidArtifact):
            select(model, curve, CompressionConfig(point=0), tmp_path / "out")
    shutil.copy(run[0] / "curve.safetensors", tmp_path / "short.safetensors")
    with (tmp_path / "short.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(InvalidArtifact):
        select(digits_job.model, tmp_path / "short.safetensors", CompressionConfig(point=0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sizes_that_are_open_to_the_last_leave_the_tensors_to_compare(
    digits_job: DigitsJob, run: tuple[Path, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random rows that the model runs on are not found for every graph."""
    monkeypatch.setattr("compressor.export.finite_outputs", lambda *_: None)
    select(digits_job.model, run[0] / "curve.safetensors", CompressionConfig(point=0), tmp_path)
    assert np.isfinite(load_csr(tmp_path / "weights.safetensors")["layer0.weight"].data).all()


def test_selection_schema_is_published_as_it_is() -> None:
    assert json.loads(files("compressor").joinpath("selection.schema.json").read_text()) == Selection.model_json_schema()


def test_the_output_of_the_run_is_that_of_its_points(digits_job: DigitsJob, tmp_path: Path) -> None:
    """What the curve's tensors are depends on it; only the run's own gives the same ones."""
    model = onnx.load(digits_job.model)
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info("h1", onnx.TensorProto.FLOAT, ["n", 30]))
    onnx.save(model, tmp_path / "two.onnx")
    options = QUICK | {"epochs": 1, "second_round_epochs": 0, "fine_tune_epochs": 0, "thresholds": [0]}
    compress(tmp_path / "two.onnx", digits_job.data, CompressionConfig.parse(options), tmp_path / "run")
    curve = tmp_path / "run" / "curve.safetensors"
    select(tmp_path / "two.onnx", curve, CompressionConfig(point=0), tmp_path / "out")
    assert [output.name for output in onnx.load(tmp_path / "out" / "model.onnx").graph.output] == ["h1", "scores"]
    with pytest.raises(InvalidArtifact, match="other tensors") as caught:
        select(tmp_path / "two.onnx", curve, CompressionConfig(point=0, output="h1"), tmp_path / "other")
    assert "output" in str(caught.value.suggestion)
    assert not (tmp_path / "other").exists()
