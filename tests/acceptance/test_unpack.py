"""`bayespress unpack` as a real process: a packed file becomes ONNX that ONNX Runtime runs, a damaged one three lines and exit code 2."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime

from tests.acceptance.served import BAYESPRESS
from tests.compressor.artifacts.formats.make import FOLDER

PACKED = FOLDER / "v1"


def unpack(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BAYESPRESS, "unpack", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_both_packed_forms_become_the_same_model(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((3, 90)).astype(np.float32)
    with np.load(PACKED / "expected.npz") as file:
        tensors = dict(file)
    expected = np.maximum(rows @ tensors["w"].T + tensors["b"], 0) @ tensors["v"].T
    for name in ("model.bp", "model.packed.onnx"):
        target = tmp_path / f"{name}.onnx"
        done = unpack(PACKED / name, "--out", target)
        assert done.returncode == 0, done.stderr
        assert str(target) in done.stdout
        assert np.allclose(onnxruntime.InferenceSession(target).run(None, {"x": rows})[0], expected, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"model.bp.onnx", "model.packed.onnx.onnx"}


def test_a_damaged_file_and_a_target_that_exists_are_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "model.bp"
    damaged.write_bytes((PACKED / "model.bp").read_bytes()[:-5])
    done = unpack(damaged, "--out", tmp_path / "out.onnx")
    assert done.returncode == 2
    assert "invalid_artifact" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.bp"]

    target = tmp_path / "there.onnx"
    target.write_text(json.dumps("mine"))
    assert unpack(PACKED / "model.bp", "--out", target).returncode == 2
    assert target.read_text() == json.dumps("mine")
    assert unpack(PACKED / "model.bp", "--out", target, "--force").returncode == 0
    assert onnxruntime.InferenceSession(target).get_inputs()[0].name == "x"


def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    done = unpack(PACKED / "weights.safetensors", "--out", tmp_path / "out.onnx")
    assert done.returncode == 2
    assert "weights.safetensors" in done.stderr
