"""What reads the artifacts of every benchmark back finds a run right, and each file that is not; and how far we are from the literature."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

from compressor import CompressionConfig, DataReference, compress, select
from tests.benchmarks import decoders
from tests.benchmarks.artifacts import distances
from tests.benchmarks.readback import check_folder, read_back
from tests.compressor.conftest import to_onnx, train_mlp


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dense.onnx, and a run in `out`, whose validation rows are carved."""
    folder = tmp_path_factory.mktemp("readback")
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    np.savez(folder / "train.npz", x=x[:1400], y=y[:1400])
    np.savez(folder / "test.npz", x=x[1400:], y=y[1400:])
    onnx.save(to_onnx(train_mlp(x[:1400], y[:1400])), folder / "dense.onnx")
    options = {"epochs": 10, "second_round_epochs": 15, "fine_tune_epochs": 8, "batch_size": 64, "max_branches": 1, "target_ratio": 8}
    config = CompressionConfig.parse({**options, "formats": ["packed", "bp"], "posterior_sigma": True, "curve_ratios": [20]})
    data = DataReference(train=str(folder / "train.npz"), test=str(folder / "test.npz"))
    report = compress(folder / "dense.onnx", data, config, folder / "out")
    assert report.delivered == "variational"
    return folder


def test_a_run_is_read_back_by_a_process_without_our_writers(run: Path) -> None:
    found = read_back(run / "out", model=run / "dense.onnx")
    assert found == {path.name: {"bytes": path.stat().st_size} for path in (run / "out").iterdir()}


def test_a_selection_is_read_back_too(run: Path, tmp_path: Path) -> None:
    select(run / "dense.onnx", run / "out" / "curve.safetensors", CompressionConfig(point=1), tmp_path)
    assert set(check_folder(tmp_path)) == {"model.onnx", "model.dense.onnx"}


@pytest.mark.parametrize("name", ["model.bp", "model.dense.onnx", "split.npz", "weights.safetensors", "curve.safetensors"])
def test_a_flipped_bit_is_found(run: Path, tmp_path: Path, name: str) -> None:
    folder = copytree(run / "out", tmp_path / "out")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(AssertionError, match=f"{name} is not the file of the report"):
        check_folder(folder, upload=run / "dense.onnx")


def test_decoders_find_a_flipped_bit_by_the_digest(run: Path, tmp_path: Path) -> None:
    for decode, name in ((decoders.weights, "weights.safetensors"), (decoders.curve, "curve.safetensors")):
        data = bytearray((run / "out" / name).read_bytes())
        data[-1] ^= 1
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AssertionError, match="another digest"):
            decode(tmp_path / name)


def _rewrite(path: Path, key: str, change: Callable[[dict[str, np.ndarray], str], str]) -> None:
    """Changes tensors and head of a safetensors file, and seals it anew."""
    with safe_open(path, framework="numpy") as file:
        tensors, text = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()[key]  # noqa: SIM118
    text = change(tensors, text)
    save_file(tensors, path, {key: text})


def test_another_point_in_the_delivered_ones_place_is_found(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests are those of the file, and the report says so: only the weights themselves are others."""
    folder = copytree(run / "out", tmp_path / "out")
    chosen = next(number for number, point in enumerate(json.loads((folder / "report.json").read_bytes())["curve"]) if point["chosen"])

    def negate(tensors: dict[str, np.ndarray], text: str) -> str:
        name = next(name for name in tensors if name.startswith(f"point/{chosen}/") and name.endswith("values"))
        tensors[name] = -tensors[name]
        return text

    _rewrite(folder / "curve.safetensors", "bayespress_curve", negate)
    monkeypatch.setattr("tests.benchmarks.readback._check_report", lambda *_: None)
    monkeypatch.setattr("tests.benchmarks.decoders._digest", lambda *_: AnyDigest())
    with pytest.raises(AssertionError, match="curve's point"):
        check_folder(folder, upload=run / "dense.onnx")


class AnyDigest(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize("change", ["halve a deviation", "a row twice", "a part that the report lacks"])
def test_deviations_and_rows_are_looked_at(run: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copytree(run / "out", tmp_path / "out")
    report = json.loads((folder / "report.json").read_bytes())
    if change == "halve a deviation":

        def halve(tensors: dict[str, np.ndarray], text: str) -> str:
            name = next(name for name in tensors if name.endswith(".sigma"))
            tensors[name] = tensors[name] / 2
            return text

        _rewrite(folder / "weights.safetensors", "bayespress_csr", halve)
        monkeypatch.setattr("tests.benchmarks.decoders._digest", lambda *_: AnyDigest())
    else:
        with np.load(folder / "split.npz") as archive:
            parts = {name: archive[name] for name in archive.files}
        if change == "a row twice":
            parts["train"][0] = parts["train"][1]
        else:
            parts["train"], parts["test"] = parts["train"][:-1], parts["train"][-1:]
        np.savez_compressed(folder / "split.npz", **parts)
    for name in ("weights.safetensors", "split.npz"):  # the report is not what finds it
        report["bytes"]["artifacts"][name] = (folder / name).stat().st_size
        del report["provenance"]["sha256"][name]
    (folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(AssertionError):
        check_folder(folder, upload=run / "dense.onnx")


def test_a_factor_is_never_without_both_errors_and_one_of_them_is_at_the_same() -> None:
    def file(size_ratio: float, error: float) -> dict[str, Any]:
        return {"bytes": 1, "size_ratio": size_ratio, "error": error}

    found: dict[str, dict[str, Any]] = {
        "lenet-300-100": {"model.onnx": file(50, 1.79), "model.bp": file(300, 1.9), "split.npz": {"bytes": 1, "size_ratio": 9}, "runs": []},
        "lenet-300-100-80": {"model.bp": file(250, 1.8)},
    }
    anchor = next(value for name, value in distances(found)["300-100"].items() if name.startswith("Sparse VD"))
    assert (anchor["size_ratio"], anchor["error"]) == (113, 1.8)
    assert anchor["smallest"] == {"plan": "lenet-300-100", "file": "model.bp", "size_ratio": 300, "error": 1.9, "factor": 300 / 113}
    assert anchor["at_its_error"] == {"plan": "lenet-300-100-80", "file": "model.bp", "size_ratio": 250, "error": 1.8, "factor": 250 / 113}
    found["lenet-300-100-80"]["model.bp"]["error"] = 1.81
    found["lenet-300-100"]["model.onnx"]["error"] = 1.81
    anchor = next(value for name, value in distances(found)["300-100"].items() if name.startswith("Sparse VD"))
    assert anchor["at_its_error"] is None
    assert list(distances(found)) == ["300-100"]
