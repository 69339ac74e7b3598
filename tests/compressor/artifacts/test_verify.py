"""The read-back check: what was written passes, the smallest change of a weight does not."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from compressor.artifacts import csr, sparse_onnx, verify
from compressor.artifacts.second_runtime import Outputs, run_elsewhere
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
    verify.check_tensors("m", {"w": WEIGHT}, sparse_onnx.read(model))
    runtimes = verify.verify_outputs("m", model.read_bytes(), linear(WEIGHT), [ROWS], EXACT, output="y")
    assert [name.split()[0] for name in runtimes] in (["onnxruntime", "openvino"], ["onnxruntime", "onnx.reference"])
    verify.verify_weights(weights, sparse_onnx.read(model), {})
    assert np.array_equal(csr.read(weights)["w"], WEIGHT)


def test_half_precision_is_compared_in_half_precision() -> None:
    half = sparse_onnx.to_sparse(linear(WEIGHT.astype(np.float16)))
    run = partial(verify.verify_outputs, "m", half.SerializeToString(), linear(WEIGHT.astype(np.float16)), [ROWS], output="y")
    run(EXACT, tolerance=verify.HALF_TOLERANCE)
    with pytest.raises(ArtifactMismatch):
        run(EXACT + 0.02 * np.abs(EXACT).max(), tolerance=verify.HALF_TOLERANCE)
    with pytest.raises(ArtifactMismatch):
        run(EXACT)


def test_one_weight_off_by_one_ulp_is_found(model: Path, weights: Path) -> None:
    with pytest.raises(ArtifactMismatch, match="'w'"):
        verify.check_tensors("m", {"w": changed()}, sparse_onnx.read(model))
    with pytest.raises(ArtifactMismatch, match="'w'"):
        verify.verify_weights(weights, {"w": changed()}, {})


def test_a_missing_or_renamed_tensor_is_found(model: Path, weights: Path) -> None:
    with pytest.raises(ArtifactMismatch):
        verify.check_tensors("m", {"v": WEIGHT}, sparse_onnx.read(model))
    with pytest.raises(ArtifactMismatch):
        verify.verify_weights(weights, {"w": WEIGHT, "b": np.ones(3, np.float32)}, {})
    with pytest.raises(ArtifactMismatch):
        verify.verify_weights(weights, {"w": WEIGHT.reshape(30, 20)}, {})


def test_other_standard_deviations_are_found(tmp_path: Path) -> None:
    path, sigma = tmp_path / "weights.safetensors", np.full(WEIGHT.shape, 0.1)
    csr.write(path, {"w": WEIGHT}, {"w": sigma})
    verify.verify_weights(path, {"w": WEIGHT}, {"w": sigma})
    for expected in ({}, {"w": 2 * sigma}):
        with pytest.raises(ArtifactMismatch, match="deviations"):
            verify.verify_weights(path, {"w": WEIGHT}, expected)


def test_outputs_are_compared_relative_to_the_largest(model: Path) -> None:
    scale = np.abs(EXACT).max()
    verify.check_outputs("m", EXACT + 0.9e-4 * scale, EXACT)
    with pytest.raises(ArtifactMismatch):
        verify.check_outputs("m", EXACT + 1.1e-4 * scale, EXACT)
    with pytest.raises(ArtifactMismatch):
        verify.verify_outputs("m", model.read_bytes(), linear(WEIGHT), [ROWS], EXACT + 0.01 * scale, output="y")


def test_a_file_that_only_the_second_runtime_reads_otherwise_is_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "run_elsewhere", lambda *_: Outputs("another 1.0", EXACT + 1))
    with pytest.raises(ArtifactMismatch, match=r"another 1\.0"):
        verify.verify_outputs("m", model.read_bytes(), linear(WEIGHT), [ROWS], EXACT, output="y")


def test_an_operator_that_the_second_runtime_lacks_says_nothing_of_the_file() -> None:
    foreign = linear(WEIGHT)
    foreign.graph.node[0].op_type = "NoSuchOperator"
    assert run_elsewhere(foreign, foreign, [ROWS], "y") is None
    found = run_elsewhere(linear(WEIGHT), linear(WEIGHT), [ROWS], "y")
    assert found is not None
    verify.check_outputs("m", found.values, EXACT)


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
        verify.verify_outputs("m", model.read_bytes(), linear(WEIGHT), [ROWS], EXACT, output="y")
    with pytest.raises(ArtifactMismatch):
        verify.verify_weights(weights, {"w": WEIGHT}, {})
