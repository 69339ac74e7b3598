"""The read-back check: what was written passes, the smallest change of a weight does not."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compressor.artifacts import csr, sparse_onnx, verify
from compressor.artifacts.second_runtime import SecondRuntime, second_runtimes, some_rows
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
    sparse_onnx.write(path, linear(WEIGHT), {})
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


Run = Callable[[ModelProto, Mapping[str, np.ndarray], str], np.ndarray]


def right(model: ModelProto, feeds: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    return np.asarray(ReferenceEvaluator(model).run([output], dict(feeds))[0])


def only_dense(model: ModelProto, feeds: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    if model.graph.node[0].op_type == "Constant":
        raise RuntimeError("Any was not initialized.")
    return right(model, feeds, output)


def only_dense_rightly(model: ModelProto, feeds: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    return EXACT + 1 if model.graph.node[0].op_type == "Constant" else right(model, feeds, output)


def wrong(*_: object) -> np.ndarray:
    return EXACT * 1.07


def slightly_wrong(*_: object) -> np.ndarray:
    """Inside the tolerance of a file, but too much for a judge."""
    return EXACT + 0.8e-4 * np.abs(EXACT).max()


def nothing(*_: object) -> np.ndarray:
    raise NotImplementedError("no such operator")


def judged_by(monkeypatch: pytest.MonkeyPatch, model: Path, *runs: Run, **kwargs: Any) -> tuple[str, ...]:
    runtimes = [SecondRuntime(f"another {number}", not number, run) for number, run in enumerate(runs)]
    monkeypatch.setattr(verify, "second_runtimes", lambda: iter(runtimes))
    return verify.verify_outputs("m", model.read_bytes(), linear(WEIGHT), [ROWS], EXACT, output="y", **kwargs)


@pytest.mark.parametrize("run", [only_dense, only_dense_rightly])
def test_a_file_that_the_second_runtime_refuses_or_reads_otherwise_is_found(model: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Where the same runtime is right about the dense graph."""
    with pytest.raises(ArtifactMismatch, match="another 0"):
        judged_by(monkeypatch, model, run, right)
    with pytest.raises(ArtifactMismatch, match="another 0"):
        judged_by(monkeypatch, model, run, right, whole=lambda: (linear(2 * WEIGHT), 2 * EXACT))


@pytest.mark.parametrize(("run", "why"), [(wrong, "7.0e-02"), (nothing, "no such operator")])
def test_a_runtime_that_is_wrong_about_the_upload_too_is_no_judge_and_the_next_one_is_asked(
    model: Path, monkeypatch: pytest.MonkeyPatch, run: Run, why: str
) -> None:
    first, second = judged_by(monkeypatch, model, run, right)
    assert first.startswith("onnxruntime ")
    assert second.startswith("another 1, since the uploaded graph")
    assert "another 0" in second
    assert why in second


def test_where_no_second_runtime_may_judge_the_first_is_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(judged_by(monkeypatch, model, wrong, nothing)) == 1


def test_a_judge_must_be_nearer_to_the_upload_than_the_file_to_the_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def file_wrong(given: ModelProto, *_: object) -> np.ndarray:
        return EXACT * 1.07 if given.graph.node[0].op_type == "Constant" else slightly_wrong()

    assert len(judged_by(monkeypatch, model, slightly_wrong)) == 2
    assert len(judged_by(monkeypatch, model, file_wrong)) == 1


def test_the_runtimes_that_there_are() -> None:
    assert [second.name.split()[0] for second in second_runtimes()] == ["openvino", "onnx.reference"]
    for second in second_runtimes():
        rows = some_rows(linear(WEIGHT), [ROWS])
        assert rows["x"].shape == (8, 20)
        verify.check_outputs("m", second.run(linear(WEIGHT), rows, "y")[:7], EXACT)


def test_a_sparse_constant_of_opset_12_is_what_openvino_refuses_and_we_are_to_blame() -> None:
    """It was delivered so once, with ONNX Runtime as the only one that had looked."""
    dense = linear(WEIGHT)
    sparse = sparse_onnx.to_sparse(dense)
    for each in (dense, sparse):
        each.opset_import[0].version = 12
    with pytest.raises(ArtifactMismatch, match="does not run in openvino"):
        verify.verify_outputs("m", sparse.SerializeToString(), dense, [ROWS], EXACT, output="y")


def test_initialisers_among_the_inputs_are_no_batches() -> None:
    """Of a model whose batch is 1: the weight has 20 rows."""
    dense = linear(WEIGHT)
    dense.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    dense.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    dense.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [20, 30]))
    assert some_rows(dense, [ROWS])["x"].shape == (1, 20)
    assert len(verify.verify_outputs("m", dense.SerializeToString(), dense, [ROWS], EXACT, output="y")) == 2


def test_peepholes_of_an_lstm_which_openvino_computes_otherwise() -> None:
    """The upload as it came: OpenVINO 2026.4 is off by some per cent, and onnx.reference is asked in its place."""
    weights = {"w": RNG.standard_normal((1, 24, 5)), "r": RNG.standard_normal((1, 24, 6)), "p": RNG.standard_normal((1, 18))}
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "", "", "", "", "p"], ["", "h"], hidden_size=6),
        helper.make_node("Identity", ["h"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 7, 5]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7, 6]),
    ]
    initialisers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    rows = RNG.standard_normal((3, 7, 5)).astype(np.float32)
    data = model.SerializeToString()
    expected = onnxruntime.InferenceSession(data).run(None, {"x": rows})[0]
    runtimes = verify.verify_outputs("m", data, model, [rows], expected, output="y")
    assert runtimes[1].startswith(f"onnx.reference {version('onnx')}, since the uploaded graph, in openvino")


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
