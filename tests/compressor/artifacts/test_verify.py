"""The read-back check: what was written passes, the smallest change of a weight does not."""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from compressor.artifacts import csr, sparse_onnx, verify
from compressor.errors import ArtifactMismatch

RNG = np.random.default_rng(0)
WEIGHT = np.where(RNG.random((20, 30)) < 0.1, RNG.standard_normal((20, 30)), 0).astype(np.float32)
ROWS = RNG.standard_normal((7, 20)).astype(np.float32)
EXACT = ROWS.astype(np.float64) @ WEIGHT.astype(np.float64)


def linear(weight: np.ndarray) -> ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, [None, 20])],
        [helper.make_tensor_value_info("y", kind, [None, 30])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(sparse_onnx.to_sparse(linear(WEIGHT)).SerializeToString())
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    csr.write(path, {"w": WEIGHT})
    return path


def changed() -> np.ndarray:
    other = WEIGHT.copy()
    row, column = np.argwhere(WEIGHT)[0]
    other[row, column] = np.nextafter(other[row, column], np.float32(9))
    return other


def test_what_was_written_passes(model: Path, weights: Path) -> None:
    verify.verify_model(model, {"w": WEIGHT}, [ROWS], EXACT)
    verify.verify_weights(weights, sparse_onnx.read(model))
    assert np.array_equal(sparse_onnx.read(model)["w"], WEIGHT)
    assert np.array_equal(csr.read(weights)["w"], WEIGHT)


def test_half_precision_is_compared_in_half_precision(tmp_path: Path) -> None:
    half = WEIGHT.astype(np.float16)
    path = tmp_path / "model.onnx"
    path.write_bytes(sparse_onnx.to_sparse(linear(half)).SerializeToString())
    verify.verify_model(path, {"w": WEIGHT}, [ROWS], EXACT)
    with pytest.raises(ArtifactMismatch):
        verify.verify_model(path, {"w": WEIGHT}, [ROWS], EXACT + 0.02 * np.abs(EXACT).max())
    assert sparse_onnx.read(path)["w"].dtype == np.float16


def test_one_weight_off_by_one_ulp_is_found(model: Path, weights: Path) -> None:
    with pytest.raises(ArtifactMismatch, match="'w'"):
        verify.verify_model(model, {"w": changed()}, [ROWS], EXACT)
    with pytest.raises(ArtifactMismatch, match="'w'"):
        verify.verify_weights(weights, {"w": changed()})


def test_a_missing_or_renamed_tensor_is_found(model: Path, weights: Path) -> None:
    with pytest.raises(ArtifactMismatch):
        verify.verify_model(model, {"v": WEIGHT}, [ROWS], EXACT)
    with pytest.raises(ArtifactMismatch):
        verify.verify_weights(weights, {"w": WEIGHT, "b": np.ones(3, np.float32)})
    with pytest.raises(ArtifactMismatch):
        verify.verify_weights(weights, {"w": WEIGHT.reshape(30, 20)})


def test_outputs_are_compared_relative_to_the_largest(model: Path) -> None:
    scale = np.abs(EXACT).max()
    verify.check_outputs("m", EXACT + 0.9e-4 * scale, EXACT)
    with pytest.raises(ArtifactMismatch):
        verify.check_outputs("m", EXACT + 1.1e-4 * scale, EXACT)
    with pytest.raises(ArtifactMismatch):
        verify.verify_model(model, {"w": WEIGHT}, [ROWS], EXACT + 0.01 * scale)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite_never_pass(bad: float) -> None:
    outputs = np.ones((2, 3))
    outputs[0, 0] = bad
    with pytest.raises(ArtifactMismatch):
        verify.check_outputs("m", outputs, np.ones((2, 3)))
    with pytest.raises(ArtifactMismatch):
        verify.check_outputs("m", np.ones((2, 3)), outputs)
    with pytest.raises(ArtifactMismatch):
        verify.check_outputs("m", np.ones((3, 2)), np.ones((2, 3)))


def test_damaged_files_are_mismatches(model: Path, weights: Path) -> None:
    model.write_bytes(model.read_bytes()[:-7])
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(ArtifactMismatch):
        verify.verify_model(model, {"w": WEIGHT}, [ROWS], EXACT)
    with pytest.raises(ArtifactMismatch):
        verify.verify_weights(weights, {"w": WEIGHT})
