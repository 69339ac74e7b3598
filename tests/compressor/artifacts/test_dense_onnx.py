"""model.dense.onnx: plain tensors that any tool reads; with float16 half the bytes, and the same graph behind a Cast."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.artifacts import dense_onnx
from compressor.artifacts.digest import seal
from compressor.errors import ArtifactMismatch, InvalidArtifact
from tests.compressor.artifacts.mutants import mutants

RNG = np.random.default_rng(0)


def network(weight: np.ndarray, ir_version: int = 8) -> ModelProto:
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.ones(30, np.float32), "b")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 20])]
    if ir_version < 4:  # then initialisers stand among the inputs
        inputs += [helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims) for tensor in tensors]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["w_float16"]), helper.make_node("Add", ["w_float16", "b"], ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 30])], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=ir_version)


def outputs(path: Path, rows: np.ndarray) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": rows})[0])


def test_a_file_without_sparse_tensors(tmp_path: Path) -> None:
    weight, path = RNG.standard_normal((20, 30)).astype(np.float32), tmp_path / "model.dense.onnx"
    dense_onnx.write(path, network(weight))
    assert np.array_equal(dense_onnx.read(path)["w"], weight)
    assert {tensor.name for tensor in onnx.load(path).graph.initializer} == {"w", "b"}


@pytest.mark.parametrize("ir_version", [3, 8])
def test_float16_halves_the_weights_and_only_them(tmp_path: Path, ir_version: int) -> None:
    weight, rows = RNG.standard_normal((20, 30)).astype(np.float32), RNG.standard_normal((4, 20)).astype(np.float32)
    whole, half = tmp_path / "whole.onnx", tmp_path / "half.onnx"

    dense_onnx.write(whole, network(weight, ir_version))
    dense_onnx.write(half, network(weight, ir_version), float16=True)

    assert half.stat().st_size < 0.6 * whole.stat().st_size
    found = dense_onnx.read(half)
    assert np.array_equal(found["w"], weight.astype(np.float16).astype(np.float32))
    assert np.array_equal(found["b"], np.ones(30, np.float32))
    assert np.allclose(outputs(half, rows), rows @ found["w"] + 1, atol=1e-5)


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMismatch, match="'w'"):
        dense_onnx.write(tmp_path / "half.onnx", network(np.full((20, 30), 1e6, np.float32)), float16=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("operator", "field"), [("Cast", "input"), ("Cast", "output"), ("Constant", "output")])
def test_a_node_without_inputs_or_outputs_is_an_error_with_a_code(tmp_path: Path, operator: str, field: str) -> None:
    path = tmp_path / "half.onnx"
    dense_onnx.write(path, network(np.ones((20, 30), np.float32)), float16=True)
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.op_type == operator)
    node.ClearField(field)
    seal(model, dense_onnx.METADATA_KEY, "1")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidArtifact):
        dense_onnx.read(path)


def test_a_file_of_another_form_or_tool_is_refused(tmp_path: Path) -> None:
    onnx.save(network(np.ones((20, 30), np.float32)), tmp_path / "theirs.onnx")
    for name in ("theirs.onnx", "absent.onnx"):
        with pytest.raises(InvalidArtifact):
            dense_onnx.read(tmp_path / name)


@pytest.mark.parametrize("float16", [False, True])
def test_of_5000_damaged_files_none_gives_other_tensors(tmp_path: Path, float16: bool) -> None:
    path = tmp_path / "model.dense.onnx"
    dense_onnx.write(path, network(np.eye(20, 30, dtype=np.float32)), float16=float16)
    good, refused = dense_onnx.read(path), 0
    for mutant in mutants(path.read_bytes(), 2500 if float16 else 5000):
        path.write_bytes(mutant)
        try:
            found = dense_onnx.read(path)
        except InvalidArtifact:
            refused += 1
        else:
            assert found.keys() == good.keys()
            assert all(np.array_equal(found[name], array) for name, array in good.items())
    assert refused > (2450 if float16 else 4900)
