"""Running a model in stock ONNX Runtime: all rows, in order, whatever the batch size of the graph."""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.artifacts import runtime
from compressor.errors import UnsupportedModel

WEIGHT = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)


def linear(batch: int | str | None, kind: int = TensorProto.FLOAT) -> ModelProto:
    weight = WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, 3])],
        [helper.make_tensor_value_info("z", kind, [batch, 2]), helper.make_tensor_value_info("y", kind, [batch, 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cast_linear(kind: int) -> ModelProto:
    """float32(x) @ w for an input of another element type."""
    model = linear(None)
    model.graph.input[0].type.tensor_type.elem_type = kind
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "f"
    del model.graph.output[0]
    return model


@pytest.mark.parametrize("batch", [None, "N", 1, 4, 16])
@pytest.mark.parametrize("rows", [1, 4, 9])
def test_all_rows_come_back_in_order(batch: int | str | None, rows: int) -> None:
    x = np.random.default_rng(1).standard_normal((rows, 3)).astype(np.float32)
    outputs = runtime.run(linear(batch).SerializeToString(), [x], output="y", batch_size=4)
    np.testing.assert_allclose(outputs, x @ WEIGHT, rtol=1e-5, atol=1e-6)


def test_the_first_output_is_taken_unless_one_is_named() -> None:
    x = -np.ones((2, 3), dtype=np.float32)
    model = linear(None).SerializeToString()
    np.testing.assert_allclose(runtime.run(model, [x]), np.maximum(x @ WEIGHT, 0), rtol=1e-5)


def test_rows_are_cast_to_the_type_of_the_input() -> None:
    x = np.ones((2, 3), dtype=np.float32)
    outputs = runtime.run(linear(None, TensorProto.FLOAT16).SerializeToString(), [x], output="y")
    assert outputs.dtype == np.float16
    np.testing.assert_allclose(outputs, x @ WEIGHT, atol=0.01)


@pytest.mark.parametrize("kind", ["BOOL", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)), "FLOAT16", "DOUBLE"])
def test_an_input_of_any_numeric_type_is_fed(kind: str) -> None:
    rows = np.array([[0, 1, 1], [1, 0, 0]])
    outputs = runtime.run(cast_linear(getattr(TensorProto, kind)).SerializeToString(), [rows])
    np.testing.assert_allclose(outputs, rows @ WEIGHT, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["BFLOAT16", "STRING"])
def test_an_input_that_numpy_cannot_feed_is_named(kind: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"'x' is a tensor.{kind.lower()}") as caught:
        runtime.run(cast_linear(getattr(TensorProto, kind)).SerializeToString(), [np.ones((1, 3))])
    assert caught.value.param == "x"
    assert caught.value.suggestion


def test_a_model_that_cannot_be_loaded_or_run_is_an_error_with_a_code(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(UnsupportedModel, match="load"):
        runtime.run(tmp_path / "m.onnx", [np.ones((1, 3), dtype=np.float32)])
    with pytest.raises(UnsupportedModel, match="run"):
        runtime.run(linear(None).SerializeToString(), [np.ones((1, 5), dtype=np.float32)])


def test_latency_is_measured_on_both_files(tmp_path: Path) -> None:
    for name in ("dense.onnx", "delivered.onnx"):
        (tmp_path / name).write_bytes(linear(None).SerializeToString())
    latency = runtime.measure_latency(
        tmp_path / "dense.onnx", tmp_path / "delivered.onnx", [np.ones((1, 3), dtype=np.float32)], num_runs=50
    )
    assert (latency.batch_size, latency.num_runs, latency.num_threads) == (1, 50, 1)
    for value in (latency.dense, latency.delivered):
        assert 0 < value.p05_ms <= value.median_ms <= value.p95_ms


def test_latency_respects_a_baked_in_batch_and_the_time_limit(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(linear(8).SerializeToString())
    latency = runtime.measure_latency(
        tmp_path / "m.onnx", tmp_path / "m.onnx", [np.ones((1, 3), dtype=np.float32)], num_runs=10_000, max_seconds=0.0
    )
    assert latency.batch_size == 8
    assert latency.num_runs == 3


@pytest.mark.parametrize("kind", ["BOOL", "INT64", "UINT8", "FLOAT16", "DOUBLE"])
def test_latency_of_any_numeric_input_in_any_layout(kind: str) -> None:
    model = cast_linear(getattr(TensorProto, kind)).SerializeToString()
    latency = runtime.measure_latency(model, model, [np.asfortranarray(np.ones((4, 3)))], batch_size=4, num_runs=3)
    assert latency.batch_size == 4
    assert latency.num_runs == 3


def test_latency_of_what_cannot_run_is_an_error_with_a_code() -> None:
    good, bad = linear(None).SerializeToString(), linear(None)
    bad.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((5, 2), np.float32), "w"))
    with pytest.raises(UnsupportedModel, match=r"cannot (load|run)"):
        runtime.measure_latency(good, bad.SerializeToString(), [np.ones((1, 3), dtype=np.float32)])
