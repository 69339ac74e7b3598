"""model.onnx: sparse and dense forms of one graph are the same model in stock ONNX Runtime, and the file passes the full check."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.artifacts import sparse_onnx
from compressor.artifacts.digest import seal
from compressor.errors import InvalidArtifact
from tests.compressor.artifacts.mutants import mutants

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def identity_model(arrays: dict[str, np.ndarray], opset: int = 17) -> ModelProto:
    """A model whose outputs are its own tensors, so that ONNX Runtime says what it read."""
    outputs = [
        helper.make_tensor_value_info(f"out:{name}", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in arrays.items()
    ]
    nodes = [helper.make_node("Identity", [name], [f"out:{name}"]) for name in arrays]
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: ModelProto, feeds: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds or {}))


def constants(model: ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    kind = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    shape = draw(st.one_of(hnp.array_shapes(min_dims=1, max_dims=5, max_side=6), st.just((40, 50)), st.just((3000,))))
    elements = st.floats(width=np.dtype(kind).itemsize * 8, allow_nan=False, allow_infinity=False)
    return draw(hnp.arrays(kind, shape, elements=elements, fill=st.just(0.0)))


@quick
@given(st.dictionaries(st.text(min_size=1, max_size=8), tensors(), min_size=1, max_size=4), st.sampled_from([11, 13, 17, 21]))
def test_onnxruntime_and_read_see_the_dense_values(tmp_path: Path, arrays: dict[str, np.ndarray], opset: int) -> None:
    dense = identity_model(arrays, opset)
    sparse = sparse_onnx.to_sparse(dense)
    onnx.checker.check_model(sparse, full_check=True)
    assert sparse.ByteSize() <= dense.ByteSize()
    for name, seen in zip(arrays, run(sparse), strict=True):
        assert seen.dtype == arrays[name].dtype
        assert np.array_equal(seen, arrays[name])
    path = tmp_path / "model.onnx"
    sparse_onnx.write(path, dense, {})
    found = sparse_onnx.read(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize(
    "array",
    [np.zeros((30, 40), np.float32), np.eye(300, dtype=np.float16), np.zeros((4, 3, 2, 5, 5), np.float32)],
    ids=["all zero", "fp16", "rank 5 all zero"],
)
def test_tensors_with_zeros_become_sparse_constants(array: np.ndarray) -> None:
    sparse = sparse_onnx.to_sparse(identity_model({"w": array}))
    assert not sparse.graph.initializer
    assert sparse.graph.node[0].op_type == "Constant"
    encoded = sparse.graph.node[0].attribute[0].sparse_tensor
    assert len(encoded.indices.int64_data) == np.count_nonzero(array)
    assert not encoded.indices.raw_data
    onnx.checker.check_model(sparse, full_check=True)
    assert np.array_equal(run(sparse)[0], array)


@pytest.mark.parametrize(
    "array",
    [np.array(0, np.float32), np.zeros((0, 3), np.float32), np.ones((20, 20), np.float32), np.zeros(400, np.int64).reshape(20, 20)],
    ids=["scalar", "no elements", "no zeros", "integers"],
)
def test_tensors_that_gain_nothing_stay_as_they_are(array: np.ndarray) -> None:
    dense = identity_model({"w": np.asarray(array)})
    assert sparse_onnx.to_sparse(dense) == dense


def test_the_smaller_form_is_taken_on_both_sides_of_the_break_even() -> None:
    rng = np.random.default_rng(0)
    forms = set()
    for density in np.linspace(0.3, 0.9, 25):
        dense = identity_model({"w": (rng.random((100, 100)) < density).astype(np.float32)})
        sparse = sparse_onnx.to_sparse(dense)
        forms.add(bool(constants(sparse)))
        assert sparse.ByteSize() <= dense.ByteSize()
    assert forms == {True, False}


def test_varint_indices_make_the_file_as_small_as_measured() -> None:
    """ARTIFACTS: 98.5 % zeros in a 266k-weight net took 38.6 times less; raw int64 indices took 22.4 times less."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((300, 784)) < 0.011, rng.standard_normal((300, 784)), 0).astype(np.float32)
    dense = identity_model({"w": weight})
    assert dense.ByteSize() / sparse_onnx.to_sparse(dense).ByteSize() > 45


def test_weights_in_constant_nodes_and_in_graph_inputs_are_treated_too() -> None:
    weight, other = np.eye(50, dtype=np.float32), np.eye(50, k=1, dtype=np.float32)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(other, "c"), name="keeps its name"),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 50]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [50, 50]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 50])],
        [numpy_helper.from_array(weight, "w")],
    )
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    sparse = sparse_onnx.to_sparse(dense)
    onnx.checker.check_model(sparse, full_check=True)
    assert [value.name for value in sparse.graph.input] == ["x"]
    assert [node.op_type for node in sparse.graph.node] == ["Constant", "Constant", "MatMul", "MatMul"]
    assert constants(sparse)["c"].name == "keeps its name"
    assert dense.graph.initializer[0].name == "w", "the given model is not changed"
    x = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    assert np.array_equal(run(sparse, {"x": x})[0], x @ weight @ other)


def test_convolution_with_sparse_weights_equals_dense() -> None:
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((8, 3, 3, 3)) < 0.1, rng.standard_normal((8, 3, 3, 3)), 0).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 8, 9, 9])],
        [numpy_helper.from_array(weight, "w")],
    )
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    sparse = sparse_onnx.to_sparse(dense)
    assert constants(sparse).keys() == {"w"}
    x = rng.standard_normal((2, 3, 9, 9)).astype(np.float32)
    assert np.array_equal(run(sparse, {"x": x})[0], run(dense, {"x": x})[0])


def test_write_puts_the_arrays_into_the_graph_and_leaves_nothing_beside(tmp_path: Path) -> None:
    model = identity_model({"w": np.ones((30, 30), np.float32), "b": np.ones(4, np.float32)})
    weight = np.eye(30, dtype=np.float32)
    sparse_onnx.write(tmp_path / "model.onnx", model, {"w": weight})
    found = sparse_onnx.read(tmp_path / "model.onnx")
    assert np.array_equal(found["w"], weight)
    assert np.array_equal(found["b"], np.ones(4))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    written = ModelProto.FromString((tmp_path / "model.onnx").read_bytes())
    assert np.array_equal(run(written)[0], weight)


@pytest.mark.parametrize("positions", [[0, 900], [-1, 3], [3, 0], [3, 3]], ids=["beyond", "negative", "falling", "twice"])
def test_indices_outside_the_tensor_are_refused(tmp_path: Path, positions: list[int]) -> None:
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    indices = TensorProto(data_type=TensorProto.INT64, dims=[2], int64_data=positions)
    model = identity_model({"w": np.eye(30, dtype=np.float32)})
    del model.graph.initializer[:]
    model.graph.node.insert(0, constant_of("w", values, indices, 30, 30))
    with pytest.raises(InvalidArtifact, match="indices"):
        sparse_onnx.read(sealed(tmp_path / "m", model))


def constant_of(name: str, values: TensorProto, indices: TensorProto, *shape: int) -> NodeProto:
    node = helper.make_node("Constant", [], [name], sparse_value=helper.make_sparse_tensor(values, indices, [2, 2]))
    node.attribute[0].sparse_tensor.dims[:] = shape
    return node


def sealed(path: Path, model: ModelProto, *fields: str) -> Path:
    """A file with a digest that is right, as somebody who means harm would write it."""
    seal(model, sparse_onnx.METADATA_KEY, "1", *fields)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("sizes", [(2**31 - 1,), (2**24 + 2**12 + 1,), (2**23, 2**23, 2**23)], ids=["one", "just over", "together"])
def test_few_bytes_that_declare_gigabytes_are_refused_before_anything_is_made_of_them(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    model = identity_model({"w": np.ones(3, np.float32)})
    one, where = numpy_helper.from_array(np.ones(1, np.float32)), TensorProto(data_type=TensorProto.INT64, dims=[1], int64_data=[0])
    nothing = numpy_helper.from_array(np.ones(0, np.float32))
    for number, size in enumerate(sizes):
        node = constant_of(f"s{number}", nothing if number else one, TensorProto(data_type=7, dims=[0]) if number else where, size)
        model.graph.node.insert(0, node)
    path = sealed(tmp_path / "m", model)
    tracemalloc.start()
    with pytest.raises(InvalidArtifact, match="elements in"):
        sparse_onnx.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_a_tensor_outside_the_file_is_refused_and_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file of that name in the working directory, which the checker of onnx would go for."""
    model = identity_model({"w": np.ones((3, 4), np.float32)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    (tmp_path / "weights.bin").write_bytes(np.ones(12, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArtifact, match="outside the file"):
        sparse_onnx.read(sealed(tmp_path / "m", model))


def test_beyond_what_a_reader_takes_tensors_stay_dense(tmp_path: Path) -> None:
    """Two tables of zeros, of which the second would be too much: densest first."""
    empty, other = np.zeros(2**24 - 2**20, np.float32), np.zeros(2**21, np.float32)
    other[:4] = 1
    sparse_onnx.write(tmp_path / "m", identity_model({"empty": empty, "other": other}), {})
    written = ModelProto.FromString((tmp_path / "m").read_bytes())
    assert constants(written).keys() == {"other"}
    found = sparse_onnx.read(tmp_path / "m")
    assert np.array_equal(found["other"], other)
    assert np.array_equal(found["empty"], empty)


def test_the_entry_of_the_metadata_is_the_documented_one(tmp_path: Path) -> None:
    model = identity_model({"w": np.eye(30, dtype=np.float32)})
    model.metadata_props.add(key="mine", value="stays")
    model.metadata_props.add(key="bayespress_sparse", value="1 of an earlier run")
    sparse_onnx.write(tmp_path / "m", model, {})
    written = ModelProto.FromString((tmp_path / "m").read_bytes())
    (entry,) = [entry for entry in written.metadata_props if entry.key == "bayespress_sparse"]
    written.metadata_props.remove(entry)
    assert entry.value == "1 " + hashlib.sha256(written.SerializeToString(deterministic=True)).hexdigest()[:32]
    assert [entry.value for entry in written.metadata_props] == ["stays"]
    (tmp_path / "m").write_bytes(written.SerializeToString())
    with pytest.raises(InvalidArtifact, match="bayespress_sparse"):
        sparse_onnx.read(tmp_path / "m")
    written.metadata_props.append(entry)
    entry.value = "2" + entry.value[1:]
    (tmp_path / "m").write_bytes(sealed(tmp_path / "n", written).read_bytes().replace(b"1 ", b"2 ", 1))
    with pytest.raises(InvalidArtifact):
        sparse_onnx.read(tmp_path / "m")


@pytest.mark.parametrize("opset", [12, 17])
def test_of_5000_damaged_files_none_gives_other_tensors(tmp_path: Path, opset: int) -> None:
    path = tmp_path / "model.onnx"
    arrays = {"w": np.eye(40, dtype=np.float32), "b": np.ones(2, np.float32)}
    sparse_onnx.write(path, identity_model(arrays, opset), {})
    content, refused = path.read_bytes(), 0
    for mutant in mutants(content, 5000 if opset == 17 else 1000):
        path.write_bytes(mutant)
        try:
            found = sparse_onnx.read(path)
        except InvalidArtifact:
            refused += 1
        else:
            assert found.keys() == arrays.keys()
            assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert refused > (4900 if opset == 17 else 950)
