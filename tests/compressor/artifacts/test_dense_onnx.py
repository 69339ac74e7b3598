"""model.dense.onnx: plain tensors that any tool reads; with float16 half the bytes, and the same graph behind a Cast."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.artifacts import dense_onnx

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
    dense_onnx.write(half, network(weight, ir_version), halves={"w"})

    assert half.stat().st_size < 0.6 * whole.stat().st_size
    found = dense_onnx.read(half)
    assert np.array_equal(found["w"], weight.astype(np.float16).astype(np.float32))
    assert np.array_equal(found["b"], np.ones(30, np.float32))
    assert np.allclose(outputs(half, rows), rows @ found["w"] + 1, atol=1e-5)
