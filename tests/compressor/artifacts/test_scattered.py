"""Sparse tensors of opset 11 and 12: ONNX Runtime and OpenVINO make them once, as they load the file, wherever a graph may want them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.artifacts import packed_onnx, sparse_onnx
from compressor.artifacts.digest import seal
from compressor.artifacts.grid import round_step, to_grid
from compressor.errors import InvalidArtifact
from compressor.graph.write import float_tensors

RNG = np.random.default_rng(0)
DECODER = {"ScatterElements", "ConstantOfShape"}


def sparse(*shape: int, density: float = 0.1) -> np.ndarray:
    return np.where(RNG.random(shape) < density, RNG.standard_normal(shape), 0).astype(np.float32)


def model_of(
    nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], x: tuple[int, ...], opset: int, ir_version: int = 7, y: int = 60
) -> ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(next(iter(tensors.values())).dtype)
    inputs = [helper.make_tensor_value_info("x", kind, ["N", *x])]
    if ir_version < 4:
        inputs += [helper.make_tensor_value_info(name, kind, array.shape) for name, array in tensors.items()]
    initialisers = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", kind, ["N", y])], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def convolutions(opset: int) -> ModelProto:
    """A weight of every operator that has one, a vector, one without nonzeros and one whose name starts as ours do."""
    nodes = [
        helper.make_node("Conv", ["x", "_0", "b"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "b", "v"], ["n"]),
        helper.make_node("ConvTranspose", ["n", "t"], ["u"], kernel_shape=[2, 2]),
        helper.make_node("GlobalAveragePool", ["u"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "none"], ["h"], transB=1),
        helper.make_node("MatMul", ["h", "m"], ["y"]),
    ]
    scale = sparse(200)
    scale[:3] = 1
    tensors = {"_0": sparse(200, 8, 3, 3), "b": sparse(200), "s": scale, "v": np.ones(200, np.float32), "t": sparse(200, 30, 2, 2)}
    return model_of(
        nodes, tensors | {"g": sparse(400, 30), "none": np.zeros(400, np.float32), "m": sparse(400, 40)}, (8, 6, 6), opset, y=40
    )


def recurrent(operator: str, opset: int) -> ModelProto:
    gates, size = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator], 24
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(operator, ["t", "w", "r", "b"], ["", "h"], hidden_size=size),
        helper.make_node("Squeeze", ["h"], ["s"], axes=[0]),
        helper.make_node("MatMul", ["s", "m"], ["y"]),
    ]
    tensors = {
        "w": sparse(1, gates * size, 60),
        "r": sparse(1, gates * size, size),
        "b": sparse(1, 2 * gates * size),
        "m": sparse(size, 90),
    }
    return model_of(nodes, tensors, (5, 60), opset, y=90)


def in_openvino(path: Path, rows: np.ndarray) -> np.ndarray:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled({"x": rows})[0])


def check(path: Path, model: ModelProto, *, exact: bool = True) -> None:
    """The same in ONNX Runtime, without a node of ours left, and in OpenVINO."""
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    rows = RNG.standard_normal((4, *shape)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path.with_suffix(".optimised")), 4
    found = onnxruntime.InferenceSession(path, options).run(None, {"x": rows})[0]
    assert DECODER.isdisjoint(node.op_type for node in onnx.load(path.with_suffix(".optimised")).graph.node)
    if exact:
        assert np.array_equal(found, onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": rows})[0])
    np.testing.assert_allclose(in_openvino(path, rows), found, atol=1e-5 * float(np.abs(found).max()))


@pytest.mark.parametrize("opset", [11, 12])
@pytest.mark.parametrize("name", ["convolutions", "LSTM", "GRU", "RNN"])
def test_both_runtimes_load_it_and_give_the_dense_outputs(tmp_path: Path, name: str, opset: int) -> None:
    path = tmp_path / "model.onnx"
    model = convolutions(opset) if name == "convolutions" else recurrent(name, opset)

    sparse_onnx.write(path, model, {})

    written = onnx.load(path)
    assert written.opset_import[0].version == opset
    assert path.stat().st_size < 0.4 * model.ByteSize()
    assert not any(attribute.name == "sparse_value" for node in written.graph.node for attribute in node.attribute)
    check(path, model)
    found, dense = sparse_onnx.read(path), float_tensors(model)
    assert found.keys() == dense.keys()
    assert all(np.array_equal(found[tensor], array) and found[tensor].dtype == array.dtype for tensor, array in dense.items())


@pytest.mark.parametrize("opset", [11, 12])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("is_quantised", [False, True])
def test_recurrent_weights_stay_sparse_in_the_packed_file(tmp_path: Path, name: str, opset: int, is_quantised: bool) -> None:
    """Beside a matrix that is packed, under a prefix of its own."""
    path, model = tmp_path / "model.packed.onnx", recurrent(name, opset)
    large = sparse(90, 900, density=0.05)
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(helper.make_node("MatMul", ["z", "large"], ["y"]))
    model.graph.initializer.append(numpy_helper.from_array(large, "large"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 900
    grids = {tensor: to_grid(array, round_step(0.25)) for tensor, array in float_tensors(model).items()}

    packed_onnx.write(path, model, grids if is_quantised else None)

    assert len(onnx.load(path).metadata_props[0].value.split()) == 9
    assert path.stat().st_size < 0.25 * model.ByteSize()
    check(path, model, exact=False)
    found = packed_onnx.read(path)
    for tensor in ("w", "r", "b"):
        assert np.array_equal(found[tensor], grids[tensor].values() if is_quantised else float_tensors(model)[tensor])
    unpacked = packed_onnx.unpack(path)
    onnx.checker.check_model(unpacked, full_check=True)
    assert DECODER.isdisjoint(node.op_type for node in unpacked.graph.node)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_float_types(tmp_path: Path, kind: type) -> None:
    arrays = {"w": sparse(30, 60).astype(kind), "none": np.zeros(200, kind)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Identity", ["none"], ["unread"])]
    model = model_of(nodes, arrays, (30,), 12)
    sparse_onnx.write(tmp_path / "m", model, {})
    found = sparse_onnx.read(tmp_path / "m")
    assert all(np.array_equal(found[name], array) and found[name].dtype == kind for name, array in arrays.items())
    rows = RNG.standard_normal((4, 30)).astype(kind)
    assert np.array_equal(
        *(onnxruntime.InferenceSession(file).run(["y"], {"x": rows})[0] for file in (tmp_path / "m", model.SerializeToString()))
    )


def test_initialisers_of_old_files_that_are_inputs_are_none_any_more(tmp_path: Path) -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": sparse(30, 60)}, (30,), 11, ir_version=3)
    sparse_onnx.write(tmp_path / "m.onnx", model, {})
    written = onnx.load(tmp_path / "m.onnx")
    assert written.ir_version == 3
    assert [info.name for info in written.graph.input] == ["x"]
    check(tmp_path / "m.onnx", model)


def test_notes_and_names_stay(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(sparse(30, 60), "w")
    nodes = [helper.make_node("Constant", [], ["w"], name="mine", value=weight), helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = model_of(nodes, {"unread": np.ones(3, np.float32)}, (30,), 12)
    sparse_onnx.write(tmp_path / "m", model, {})
    assert "mine" in {node.name for node in onnx.load(tmp_path / "m").graph.node}
    assert np.array_equal(sparse_onnx.read(tmp_path / "m")["w"], numpy_helper.to_array(weight))


def crafted(path: Path, change: str) -> Path:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": sparse(30, 60)}, (30,), 12)
    sparse_onnx.write(path, model, {})
    written = onnx.load(path)
    nodes = written.graph.node
    indices, values = nodes[2].attribute[0].t, nodes[3].attribute[0].t
    match change:
        case "beyond":
            indices.int64_data[-1] = 1800
        case "negative":
            indices.int64_data[0] = -1
        case "twice":
            indices.int64_data[1] = indices.int64_data[0]
        case "zero":
            values.CopyFrom(numpy_helper.from_array(np.zeros(len(indices.int64_data), np.float32)))
        case "shape":
            nodes[5].attribute[0].t.int64_data[:] = [-30, -60]
        case "gigabytes":
            nodes[0].attribute[0].t.int64_data[:] = [2**40]
            nodes[5].attribute[0].t.int64_data[:] = [2**20, 2**20]
        case "size":
            nodes[0].attribute[0].t.int64_data[:] = [1801]
        case "fill":
            nodes[1].attribute[0].t.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32)))
        case "axis":
            nodes[4].attribute.append(helper.make_attribute("axis", -1))
        case "more":
            nodes.insert(0, helper.make_node("Constant", [], ["_9"], value=numpy_helper.from_array(np.ones(1, np.float32))))
    seal(written, sparse_onnx.METADATA_KEY, "1", "_")
    path.write_bytes(written.SerializeToString())
    return path


@pytest.mark.parametrize("change", ["beyond", "negative", "twice", "zero", "shape", "gigabytes", "size", "fill", "axis", "more"])
def test_nodes_that_are_not_as_they_are_written_are_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(InvalidArtifact):
        sparse_onnx.read(crafted(tmp_path / "m", change))


def test_the_crafted_file_is_good_before_it_is_changed(tmp_path: Path) -> None:
    assert sparse_onnx.read(crafted(tmp_path / "m", "nothing"))["w"].shape == (30, 60)


def test_indices_are_varints(tmp_path: Path) -> None:
    path = tmp_path / "m"
    sparse_onnx.write(path, model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": sparse(30, 60)}, (30,), 12), {})
    stored = [
        attribute.t for node in onnx.load(path).graph.node for attribute in node.attribute if attribute.t.data_type == TensorProto.INT64
    ]
    assert len(stored) == 3
    assert not any(tensor.raw_data for tensor in stored)
