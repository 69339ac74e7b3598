"""parse_model: every refusal with its code and remedy, and nothing but a CompressionError for any bytes."""

import pickle
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from compressor.errors import CompressionError, ExternalData, GraphTooLarge, InvalidModel, ModelError, UnsupportedModel
from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from tests.compressor.graph.models import linear_model, model_of, node, values

Change = Callable[[ModelProto], object]


def sparse_model(indices: list[int], shape: list[int], values_given: int | None = None, rank: int = 1) -> ModelProto:
    """A model with one Constant(sparse_value)."""
    count = len(indices) // rank
    numbers = helper.make_tensor("", TensorProto.FLOAT, [values_given or count], [1.0] * (values_given or count))
    places = helper.make_tensor("", TensorProto.INT64, [count] if rank == 1 else [count, rank], indices)
    sparse = SparseTensorProto(values=numbers, indices=places, dims=shape)
    nodes = [node("Constant", [], "w", sparse_value=sparse), node("MatMul", ["x", "w"], "y")]
    return model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]})


def externalise(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def external_constant(model: ModelProto) -> None:
    made = node("Constant", [], "c", value=numpy_helper.from_array(values(2)))
    externalise(made.attribute[0].t)
    model.graph.node.insert(0, made)


def external_sparse_constant(model: ModelProto) -> None:
    model.CopyFrom(sparse_model([1, 5], [4, 3]))
    externalise(model.graph.node[0].attribute[0].sparse_tensor.values)


def external_tensor_list(model: ModelProto) -> None:
    tensor = numpy_helper.from_array(values(2))
    externalise(tensor)
    model.graph.node[0].attribute.append(AttributeProto(name="extra", type=AttributeProto.TENSORS, tensors=[tensor]))


def with_subgraph(model: ModelProto) -> None:
    branch = helper.make_graph([node("Identity", ["scores"], "out")], "branch", [], [helper.make_tensor_value_info("out", 1, None)])
    model.graph.node.append(node("If", ["flag"], "z", then_branch=branch, else_branch=branch))


def with_function(model: ModelProto) -> None:
    made = helper.make_function("local", "F", ["a"], ["b"], [node("Relu", ["a"], "b")], [helper.make_opsetid("", 17)])
    model.functions.append(made)


def initialiser(model: ModelProto) -> TensorProto:
    return model.graph.initializer[0]


def set_raw(model: ModelProto, array: np.ndarray) -> None:
    initialiser(model).raw_data = array.tobytes()


def with_name(model: ModelProto, name: str) -> None:
    model.graph.node[1].name = name


REFUSALS: dict[str, tuple[type[ModelError], Change]] = {
    "external initialiser": (ExternalData, lambda m: externalise(initialiser(m))),
    "external data without a location": (ExternalData, lambda m: initialiser(m).external_data.add(key="location", value="x")),
    "external constant": (ExternalData, external_constant),
    "external sparse constant": (ExternalData, external_sparse_constant),
    "external tensor in a list": (ExternalData, external_tensor_list),
    "sparse initialiser": (UnsupportedModel, lambda m: m.graph.sparse_initializer.add()),
    "control flow": (UnsupportedModel, with_subgraph),
    "function": (UnsupportedModel, with_function),
    "training graph": (UnsupportedModel, lambda m: m.training_info.add()),
    "foreign domain": (UnsupportedModel, lambda m: setattr(m.graph.node[1], "domain", "com.microsoft")),
    "quantised": (UnsupportedModel, lambda m: m.graph.node.append(node("DequantizeLinear", ["a", "b"], "c"))),
    "old opset": (UnsupportedModel, lambda m: setattr(m.opset_import[0], "version", 10)),
    "new opset": (UnsupportedModel, lambda m: setattr(m.opset_import[0], "version", 24)),
    "two opsets": (InvalidModel, lambda m: m.opset_import.add(domain="ai.onnx", version=17)),
    "no opset": (InvalidModel, lambda m: m.ClearField("opset_import")),
    "raw data too short": (InvalidModel, lambda m: set_raw(m, values(19))),
    "raw data too long": (InvalidModel, lambda m: set_raw(m, values(21))),
    "huge dimensions": (GraphTooLarge, lambda m: initialiser(m).dims.append(2**40)),
    "overflowing dimensions": (GraphTooLarge, lambda m: initialiser(m).dims.extend([2**62, 2**62])),
    "negative dimension": (InvalidModel, lambda m: initialiser(m).dims.extend([-1, -1])),
    "many dimensions": (GraphTooLarge, lambda m: initialiser(m).dims.extend([1] * 20)),
    "two fields of data": (InvalidModel, lambda m: initialiser(m).float_data.append(1.0)),
    "the wrong field of data": (
        InvalidModel,
        lambda m: (initialiser(m).ClearField("raw_data"), initialiser(m).int32_data.extend([1] * 20)),
    ),
    "segment": (InvalidModel, lambda m: initialiser(m).segment.CopyFrom(TensorProto.Segment(begin=0, end=1))),
    "element type": (UnsupportedModel, lambda m: setattr(initialiser(m), "data_type", TensorProto.FLOAT8E4M3FN)),
    "unknown element type": (UnsupportedModel, lambda m: setattr(initialiser(m), "data_type", 999)),
    "not a number": (InvalidModel, lambda m: set_raw(m, np.full((4, 5), np.nan, np.float32))),
    "infinite": (InvalidModel, lambda m: set_raw(m, np.full((4, 5), np.inf, np.float32))),
    "initialiser twice": (InvalidModel, lambda m: m.graph.initializer.append(initialiser(m))),
    "long name": (GraphTooLarge, lambda m: with_name(m, "n" * 2000)),
    "many inputs of a node": (GraphTooLarge, lambda m: m.graph.node[1].input.extend(["hidden"] * 5000)),
    "many outputs": (GraphTooLarge, lambda m: m.graph.output.extend([m.graph.output[0]] * 300)),
    "many nodes": (GraphTooLarge, lambda m: m.graph.node.extend([m.graph.node[1]] * 20_001)),
    "constant without a value": (InvalidModel, lambda m: m.graph.node.insert(0, node("Constant", [], "c"))),
    "unknown operator": (InvalidModel, lambda m: setattr(m.graph.node[1], "op_type", "Frobnicate")),
    "undefined value": (InvalidModel, lambda m: m.graph.node[1].MergeFrom(node("Relu", ["nowhere"], []))),
    "no graph": (InvalidModel, lambda m: m.ClearField("graph")),
    "sparse index outside": (InvalidModel, lambda m: m.CopyFrom(sparse_model([1, 12], [4, 3]))),
    "sparse index negative": (InvalidModel, lambda m: m.CopyFrom(sparse_model([-1, 3], [4, 3]))),
    "sparse indices unsorted": (InvalidModel, lambda m: m.CopyFrom(sparse_model([5, 3], [4, 3]))),
    "sparse index twice": (InvalidModel, lambda m: m.CopyFrom(sparse_model([3, 3], [4, 3]))),
    "sparse coordinate outside": (InvalidModel, lambda m: m.CopyFrom(sparse_model([0, 1, 1, 3], [4, 3], rank=2))),
    "sparse coordinates unsorted": (InvalidModel, lambda m: m.CopyFrom(sparse_model([1, 1, 0, 2], [4, 3], rank=2))),
    "fewer sparse indices than values": (InvalidModel, lambda m: m.CopyFrom(sparse_model([1, 2], [4, 3], values_given=3))),
    "huge sparse tensor": (GraphTooLarge, lambda m: m.CopyFrom(sparse_model([1, 2], [200_000, 200_000]))),
    "large sparse tensor": (GraphTooLarge, lambda m: m.CopyFrom(sparse_model([1, 2], [40_000, 40_000]))),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_have_their_code_and_a_remedy(name: str) -> None:
    expected, change = REFUSALS[name]
    model = linear_model()
    change(model)
    with pytest.raises(ModelError) as caught:
        parse_model(model.SerializeToString())
    assert type(caught.value) is expected
    assert caught.value.param
    assert caught.value.suggestion
    assert len(caught.value.detail) < 3000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"This is a text file, and no model at all.\n",
        pickle.dumps({"a": [1.5] * 50}),
        b"PK\x03\x04" + bytes(100),
        bytes(1000),
        b"\xff" * 64,
    ],
    ids=["empty", "text", "pickle", "zip", "zeros", "ones"],
)
def test_what_is_no_model_is_invalid(data: bytes) -> None:
    with pytest.raises(InvalidModel) as caught:
        parse_model(data)
    assert caught.value.suggestion


def test_a_truncated_model_is_invalid() -> None:
    data = linear_model().SerializeToString()
    with pytest.raises(InvalidModel):
        parse_model(data[: len(data) // 2])


@pytest.mark.parametrize("opset", [11, 13, 17, 20, 23])
def test_valid_models_pass_unchanged(opset: int) -> None:
    model = linear_model(opset)
    assert parse_model(model.SerializeToString()) == model


def test_typed_fields_and_single_infinities_pass() -> None:
    model = linear_model()
    weight = initialiser(model)
    numbers = numpy_helper.to_array(weight).reshape(-1).tolist()
    weight.ClearField("raw_data")
    weight.float_data.extend(numbers)
    model.graph.initializer.append(numpy_helper.from_array(np.array(np.inf, np.float32), "limit"))
    assert parse_model(model.SerializeToString()) == model


@pytest.mark.parametrize("model", [sparse_model([1, 5], [4, 3]), sparse_model([0, 2, 3, 1], [4, 3], rank=2)], ids=["linear", "coordinates"])
def test_sparse_constants_pass(model: ModelProto) -> None:
    assert parse_model(model.SerializeToString()) == model


def test_unused_foreign_opsets_pass() -> None:
    model = linear_model()
    model.opset_import.add(domain="pkg.onnxscript.torch_lib.common", version=1)
    assert parse_model(model.SerializeToString()).opset_import[1].version == 1


SEEDS = [
    linear_model().SerializeToString(),
    sparse_model([1, 5], [4, 3]).SerializeToString(),
    model_of(
        [
            node("Conv", ["x", "w", "b"], "c", pads=[1, 0, 1, 0], strides=[1, 2], auto_pad="NOTSET"),
            node("MaxPool", ["c"], "p", kernel_shape=[2, 2], ceil_mode=1),
            node("Flatten", ["p"], "f"),
            node("Slice", ["f", "from", "to"], "y"),
        ],
        {"x": ["n", 1, 6, 6]},
        {"y": [None, None]},
        {"w": values(2, 1, 3, 3), "b": values(2), "from": np.array([0, 1]), "to": np.array([9, 5])},
    ).SerializeToString(),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid file, cut or with a few bytes changed, inserted or removed."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["replace", "flip", "insert", "remove", "cut", "number"])):
            case "replace":
                data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "flip":
                data[place : place + 1] = bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) if data else b""
            case "insert":
                data[place:place] = draw(st.binary(max_size=9))
            case "remove":
                del data[place : place + draw(st.integers(1, 9))]
            case "cut":
                del data[place:]
            case "number":
                data[place : place + 8] = struct.pack("<q", draw(st.sampled_from([-1, 2**31, 2**62, -(2**63)])))
    return bytes(data)


def attempt(data: bytes) -> OnnxModule | CompressionError:
    try:
        return OnnxModule(parse_model(data))
    except CompressionError as error:
        return error


@settings(max_examples=400, deadline=None)
@given(data=damaged() | st.binary(max_size=200))
@example(data=b"\x08\x0a\x12\x02\xff\xfe")
def test_any_bytes_give_a_model_or_a_compression_error(data: bytes) -> None:
    outcome = attempt(data)
    assert outcome.suggestion if isinstance(outcome, CompressionError) else outcome.weight_names
