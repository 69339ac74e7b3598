"""Arrays back into the client's graph: exact, of the file's own types, in inference mode."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import ArtifactMismatch
from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors, write_arrays
from tests.compressor.graph.models import linear_model, model_of, node, values
from tests.compressor.graph.networks import exported


def test_everything_but_the_numbers_stays() -> None:
    model = linear_model()
    model.producer_name, model.doc_string = "a client", "their words"
    model.metadata_props.add(key="licence", value="theirs")
    model.graph.initializer[0].doc_string = "the first layer"
    before = model.SerializeToString()
    written = write_arrays(model, {"w1": np.zeros((4, 5), np.float32)})
    assert model.SerializeToString() == before
    assert not float_tensors(written)["w1"].any()

    onnx.checker.check_model(written, full_check=True)
    restored = write_arrays(written, {"w1": float_tensors(model)["w1"]})
    assert restored.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_half_precision_goes_back_as_half_precision() -> None:
    weight = values(4, 2).astype(np.float16)
    types = {"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT16}
    model = model_of([node("MatMul", ["x", "w"], "y")], {"x": ["n", 4]}, {"y": ["n", 2]}, {"w": weight}, types=types)
    tensors = {name: tensor.detach().numpy() for name, tensor in OnnxModule(model).tensors().items()}
    assert tensors["w"].dtype == np.float32
    after = float_tensors(write_arrays(model, tensors))["w"]
    assert after.dtype == np.float16
    assert np.array_equal(after, weight)
    with pytest.raises(ArtifactMismatch, match="'w'"):
        write_arrays(model, {"w": np.full((4, 2), 1e9, np.float32)})


def test_constants_of_every_kind_are_written() -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("", TensorProto.FLOAT, [2], [1.5, -2.0]), helper.make_tensor("", TensorProto.INT64, [2], [1, 10]), [4, 3]
    )
    nodes = [
        node("Constant", [], "dense", value=numpy_helper.from_array(values(3, 3), "inner")),
        node("Constant", [], "sparse", sparse_value=sparse),
        node("Constant", [], "list", value_floats=[1.0, 2.0, 3.0]),
        node("Constant", [], "number", value_float=2.0),
        node("Constant", [], "sizes", value_ints=[-1, 3]),
        node("MatMul", ["x", "sparse"], "a"),
        node("MatMul", ["a", "dense"], "b"),
        node("Add", ["b", "list"], "c"),
        node("Mul", ["c", "number"], "d"),
        node("Reshape", ["d", "sizes"], "y"),
    ]
    model = parse_model(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}).SerializeToString())
    before = float_tensors(model)
    assert before.keys() == {"dense", "sparse", "list"}
    assert before["sparse"][0, 1] == 1.5
    assert before["sparse"][3, 1] == -2.0
    changed = {name: array * 3 + 1 for name, array in before.items()}
    written = write_arrays(model, changed)
    assert [made.output[0] for made in written.graph.node] == [made.output[0] for made in model.graph.node]
    after = float_tensors(parse_model(written.SerializeToString()))
    assert all(np.array_equal(after[name], changed[name]) for name in changed)

    x = values(2, 4)
    (got,) = onnxruntime.InferenceSession(written.SerializeToString()).run(None, {"x": x})
    expected = (x @ changed["sparse"] @ changed["dense"] + changed["list"]) * 2
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_wrong_names_and_shapes_are_errors() -> None:
    with pytest.raises(KeyError):
        write_arrays(linear_model(), {"w9": np.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        write_arrays(linear_model(), {"w1": np.zeros((5, 4), np.float32)})


def test_training_mode_is_taken_out() -> None:
    model = parse_model(exported("mlp", "legacy-training"))
    kinds = {made.op_type for made in model.graph.node}
    assert {"BatchNormalization", "Dropout"} <= kinds
    written = write_arrays(model, {})
    onnx.checker.check_model(written, full_check=True)
    for made in written.graph.node:
        if made.op_type == "BatchNormalization":
            assert len(made.output) == 1
            assert "training_mode" not in [attribute.name for attribute in made.attribute]
        if made.op_type == "Dropout":
            assert len(made.input) <= 2
    session = onnxruntime.InferenceSession(written.SerializeToString())
    x = values(3, 1, 8, 8)
    assert np.array_equal(session.run(None, {"x": x})[0], session.run(None, {"x": x})[0])
