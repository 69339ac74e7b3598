"""model.packed.onnx: stock ONNX Runtime loads the client's graph with exactly the packed tensors, and so does the reader of our own."""

import hashlib
import math
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, StringStringEntryProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compressor.artifacts import packed_onnx, packed_payload, sparse_onnx
from compressor.artifacts.grid import MAX_CODE, GridTensor, round_step, to_grid
from compressor.errors import CannotPack, InvalidArtifact
from compressor.graph import content
from tests.compressor.artifacts.mutants import mutants
from tests.compressor.graph.models import model_of, node

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

DECODER = {"CumSum", "ScatterElements", "Mod", "Greater", "Where", "ConstantOfShape", "Split", "Slice", "Cast", "Mul", "Reshape", "Sub"}
KEY = "bayespress_packed"


def identity_model(arrays: Mapping[str, np.ndarray], opset: int = 17) -> ModelProto:
    """A model whose outputs are its own tensors, so that ONNX Runtime says what it read."""
    kinds = {f"out:{name}": helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    shapes = {f"out:{name}": array.shape for name, array in arrays.items()}
    return model_of([node("Identity", [name], f"out:{name}") for name in arrays], {}, shapes, arrays, opset, kinds)


def session(model: ModelProto, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ModelProto, feeds: Mapping[str, np.ndarray] | None = None) -> list[np.ndarray]:
    return list(session(model).run(None, dict(feeds or {})))


def tensors_of(model: ModelProto) -> dict[str, np.ndarray]:
    """Initialisers and sparse constants."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for item in model.graph.node:
        for sparse in (attribute.sparse_tensor for attribute in item.attribute if attribute.name == "sparse_value"):
            values = numpy_helper.to_array(sparse.values)
            elements = np.zeros(math.prod(sparse.dims), values.dtype)
            elements[numpy_helper.to_array(sparse.indices)] = values
            found[item.output[0]] = elements.reshape(tuple(sparse.dims))
    return found


def fields_of(model: ModelProto) -> list[str]:
    (entry,) = [entry.value for entry in model.metadata_props if entry.key == KEY]
    return entry.split(" ")


def packed_names(model: ModelProto) -> list[str]:
    """Outputs of the decoder that have names of the client's."""
    prefix = fields_of(model)[1]
    inner = [item for item in model.graph.node if any(name.startswith(prefix) for name in item.input)]
    return [name for item in inner for name in item.output if not name.startswith(prefix)]


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def assert_packed_is(model: ModelProto, expected: Mapping[str, np.ndarray]) -> None:
    """ONNX Runtime, and our own reader, find `expected` in a packed model made from identity_model."""
    onnx.checker.check_model(model, full_check=True)
    seen = dict(zip(expected, run(model), strict=True)) if expected else {}
    assert_same(seen, expected)
    plain = packed_onnx.unpack(model)
    onnx.checker.check_model(plain, full_check=True)
    assert_same(tensors_of(plain), expected)
    assert KEY not in {entry.key for entry in plain.metadata_props}


def sparse_values(shape: Sequence[int], density: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(np.float32)


def quantised(array: np.ndarray, bits: int = 4) -> GridTensor:
    largest = min(2 ** (bits - 1), MAX_CODE)
    return to_grid(array, round_step(float(np.abs(array).max(initial=0)) / largest or 1.0))


def grid_of(codes: Any, step: float = 0.5) -> GridTensor:
    return GridTensor(np.asarray(codes, np.int8), step)


# Large enough that the decoder pays off, so that whatever stands beside it is packed wherever that saves a byte.
LARGE = sparse_values((120, 90), 0.15)

STEPS = st.floats(1e-3, 1).map(round_step)
NAMES = st.text(string.ascii_letters + "_./:0SVC", min_size=1, max_size=6)
KINDS = st.sampled_from([np.float32, np.float16, np.float64])
SHAPES = st.one_of(hnp.array_shapes(max_dims=5, max_side=6), st.sampled_from([(40, 50), (3000,), (7, 3, 5, 5), (900, 1)]))


@st.composite
def grids(draw: st.DrawFn) -> GridTensor:
    largest = draw(st.sampled_from([1, 2, 8, 16, 127]))
    codes = draw(hnp.arrays(np.int8, draw(SHAPES), elements=st.integers(-largest, largest), fill=st.just(0)))
    return GridTensor(codes, draw(STEPS))


@quick
@given(
    st.dictionaries(NAMES, st.tuples(grids(), KINDS), max_size=4),
    st.booleans(),
    st.sampled_from([11, 12, 13, 17, 18, 20, 21, 23]),
    st.sampled_from([2, 4, 5, 8]),
)
def test_quantised_tensors_come_back(found: dict[str, tuple[GridTensor, type]], with_large: bool, opset: int, bits: int) -> None:
    given_grids = {name: grid for name, (grid, _) in found.items()}
    arrays = {name: grid.values().astype(kind) for name, (grid, kind) in found.items()}
    if with_large or not found:
        given_grids["a large one"] = quantised(LARGE, bits)
        arrays["a large one"] = given_grids["a large one"].values()
    model = identity_model(arrays, opset)
    packed = packed_onnx.pack(model, given_grids)
    assert_packed_is(packed, arrays)
    assert packed.ByteSize() < model.ByteSize() + 80
    if with_large:
        assert "a large one" in packed_names(packed)


@st.composite
def floats(draw: st.DrawFn) -> np.ndarray:
    kind = draw(KINDS)
    elements = st.floats(width=np.dtype(kind).itemsize * 8, allow_nan=False, allow_infinity=False)
    return draw(hnp.arrays(kind, draw(SHAPES), elements=elements, fill=st.just(0.0)))


@quick
@given(st.dictionaries(NAMES, floats(), max_size=4), st.booleans(), st.sampled_from([11, 13, 20, 23]))
def test_without_grids_values_come_back_rounded_to_float16(arrays: dict[str, np.ndarray], with_large: bool, opset: int) -> None:
    if with_large or not arrays:
        arrays |= {"a large one": LARGE}
    packed = packed_onnx.pack(identity_model(arrays, opset), None)
    rounded = packed_names(packed)
    with np.errstate(over="ignore"):
        expected = {name: array.astype(np.float16).astype(array.dtype) if name in rounded else array for name, array in arrays.items()}
    assert all(np.isfinite(array).all() and array.ndim > 1 for name, array in expected.items() if name in rounded)
    assert_packed_is(packed, expected)
    if with_large:
        assert "a large one" in rounded


ONE_WEIGHT = np.zeros((80, 90), np.float32)
ONE_WEIGHT[79, 89] = 3
EMPTY_ROWS = sparse_values((90, 80), 0.04)
EMPTY_ROWS[10:70] = 0


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((100, 100), np.float32),
        ONE_WEIGHT,
        ONE_WEIGHT[::-1, ::-1],
        EMPTY_ROWS,
        np.eye(100, dtype=np.float32),
        np.ones((60, 60), np.float32),
        sparse_values((60, 60), 0.85),
        sparse_values((9000,), 0.02),
        sparse_values((6, 5, 4, 3, 2, 20), 0.02),
    ],
    ids=["all dead", "last weight", "first weight", "empty rows", "diagonal", "no zeros", "dense", "vector", "rank 6"],
)
@pytest.mark.parametrize("opset", [11, 13])
def test_extreme_patterns_are_packed(array: np.ndarray, opset: int) -> None:
    made = {"w": quantised(array), "large": quantised(LARGE)}
    arrays = {name: grid.values() for name, grid in made.items()}
    packed = packed_onnx.pack(identity_model(arrays, opset), made)
    assert set(packed_names(packed)) == {"w", "large"}
    assert packed.ByteSize() < (array.nbytes + LARGE.nbytes) / 2
    assert_packed_is(packed, arrays)


def test_one_weight_among_many_and_many_low_bits() -> None:
    array = np.zeros((1200, 1000), np.float32)
    array[-1, -1] = 1
    grid = grid_of(array)
    packed = packed_onnx.pack(identity_model({"w": grid.values()}), {"w": grid})
    assert packed.ByteSize() < 600
    assert_packed_is(packed, {"w": grid.values()})


MLP = {"w1": (30, 64), "b1": (30,), "w2": (20, 30), "b2": (20,), "w3": (20, 10)}
CNN = {"k1": (12, 3, 3, 3), "k2": (24, 12, 3, 3), "scale": (24,), "shift": (24,), "mean": (24,), "var": (24,), "w": (10, 24), "b": (10,)}


def mlp(arrays: Mapping[str, np.ndarray], opset: int) -> ModelProto:
    nodes = [
        node("Gemm", ["x", "w1", "b1"], "h1", transB=1),
        node("Relu", ["h1"], "r1"),
        node("Gemm", ["r1", "w2", "b2"], "h2", transB=1),
        node("Relu", ["h2"], "r2"),
        node("MatMul", ["r2", "w3"], "y"),
    ]
    return model_of(nodes, {"x": ["n", 64]}, {"y": ["n", 10]}, arrays, opset)


def cnn(arrays: Mapping[str, np.ndarray], opset: int) -> ModelProto:
    nodes = [
        node("Conv", ["x", "k1"], "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], "r1"),
        node("Conv", ["r1", "k2"], "c2", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c2", "scale", "shift", "mean", "var"], "n2"),
        node("Relu", ["n2"], "r2"),
        node("GlobalAveragePool", ["r2"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "w", "b"], "y", transB=1),
    ]
    return model_of(nodes, {"x": ["n", 3, 14, 14]}, {"y": ["n", 10]}, arrays, opset)


NETWORKS: dict[str, tuple[Callable[[Mapping[str, np.ndarray], int], ModelProto], dict[str, tuple[int, ...]], tuple[int, ...]]] = {
    "mlp": (mlp, MLP, (64,)),
    "cnn": (cnn, CNN, (3, 14, 14)),
}


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    found = {name: sparse_values(shape, 0.1 if len(shape) > 1 else 1, seed) for seed, (name, shape) in enumerate(shapes.items())}
    return found | {"var": np.abs(found["var"]) + 0.5} if "var" in found else found


def network(name: str, opset: int, values: str) -> tuple[ModelProto, dict[str, GridTensor] | None, np.ndarray]:
    """A network, what its packed form is made from, and rows for it."""
    build, shapes, row = NETWORKS[name]
    arrays = weights(shapes)
    x = np.random.default_rng(1).standard_normal((5, *row)).astype(np.float32)
    if values == "float16":
        return build({name: array.astype(np.float16).astype(np.float32) for name, array in arrays.items()}, opset), None, x
    made = {name: quantised(array, 4 if array.ndim > 1 else 8) for name, array in arrays.items()}
    return build({name: grid.values() for name, grid in made.items()}, opset), made, x


def operators(path: Path) -> list[str]:
    """Sorted: in which order ONNX Runtime writes branches is left to chance."""
    return sorted(item.op_type for item in onnx.load(path).graph.node)


@pytest.mark.parametrize("values", ["4 bits", "float16"])
@pytest.mark.parametrize("opset", [11, 13, 20, 23])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_runs_the_dense_graph_and_nothing_of_the_decoder(tmp_path: Path, name: str, opset: int, values: str) -> None:
    dense, made, x = network(name, opset, values)
    packed = packed_onnx.pack(dense, made)
    assert packed.ByteSize() < dense.ByteSize()
    assert {item.op_type for item in packed.graph.node} | ({"Mul"} if made is None else set()) >= DECODER

    (of_packed,) = session(packed, tmp_path / "packed").run(None, {"x": x})
    (of_dense,) = session(dense, tmp_path / "dense").run(None, {"x": x})
    assert np.array_equal(of_packed, of_dense)
    assert operators(tmp_path / "packed") == operators(tmp_path / "dense")
    assert not DECODER & set(operators(tmp_path / "packed"))


@pytest.mark.parametrize("values", ["4 bits", "float16"])
@pytest.mark.parametrize("opset", [11, 20])
def test_the_specification_says_so_too(opset: int, values: str) -> None:
    dense, made, x = network("mlp", opset, values)
    packed = packed_onnx.pack(dense, made)
    found, expected = (ReferenceEvaluator(model).run(None, {"x": x})[0] for model in (packed, dense))
    assert np.array_equal(found, expected)


def test_the_clients_graph_stays_as_it_is() -> None:
    dense, made, _ = network("cnn", 17, "4 bits")
    before = dense.SerializeToString()
    packed = packed_onnx.pack(dense, made)
    assert dense.SerializeToString() == before
    assert list(packed.graph.node)[-len(dense.graph.node) :] == list(dense.graph.node)
    assert list(packed.graph.input) == list(dense.graph.input)
    assert list(packed.graph.output) == list(dense.graph.output)
    assert list(packed.opset_import) == list(dense.opset_import)

    plain = packed_onnx.unpack(packed)
    assert_same(tensors_of(plain), tensors_of(dense))
    del plain.graph.initializer[:], dense.graph.initializer[:]
    assert plain == dense


def test_weights_in_constant_nodes_and_in_graph_inputs_are_packed_too() -> None:
    first, second = quantised(sparse_values((64, 64), 0.1, 1)), quantised(sparse_values((64, 64), 0.1, 2))
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(3, np.float32)), TensorProto(data_type=TensorProto.INT64, dims=[3], int64_data=[1, 5, 9]), [64, 64]
    )
    third = grid_of(np.zeros((64, 64)), 1.0)
    third.codes.reshape(-1)[[1, 5, 9]] = 1
    nodes = [
        node("Constant", [], "c", value=numpy_helper.from_array(second.values(), "c")),
        node("Constant", [], "s", sparse_value=sparse),
        node("MatMul", ["x", "w"], "h"),
        node("MatMul", ["h", "c"], "i"),
        node("MatMul", ["i", "s"], "y"),
    ]
    model = model_of(nodes, {"x": ["n", 64], "w": [64, 64]}, {"y": ["n", 64]}, {"w": first.values()})
    packed = packed_onnx.pack(model, {"w": first, "c": second, "s": third})
    onnx.checker.check_model(packed, full_check=True)
    assert packed_names(packed) == ["w", "c", "s"]
    assert "Constant" not in {item.op_type for item in packed.graph.node}
    assert [info.name for info in packed.graph.input] == ["x"]
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    assert np.array_equal(run(packed, {"x": x})[0], run(model, {"x": x})[0])
    assert_same(tensors_of(packed_onnx.unpack(packed)), {"w": first.values(), "c": second.values(), "s": third.values()})


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
def test_weights_of_recurrent_nodes_stay_constants(operator: str) -> None:
    """OpenVINO does not fold the decoder, and takes them from constants alone: also where the exporter has put nodes in between."""
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator], 30
    grids = {
        "kernel": quantised(sparse_values((12, gates * hidden), 0.1)),
        "recurrent": quantised(sparse_values((1, gates * hidden, hidden), 0.1, seed=1)),
        "bias": quantised(sparse_values((1, 2 * gates * hidden), 0.5, seed=2), 8),
        "head": quantised(sparse_values((hidden, 400), 0.05, seed=3)),
    }
    nodes = [
        node("Transpose", ["kernel"], "turned", perm=[1, 0]),
        node("Unsqueeze", ["turned", "zeroth"], "whole"),
        node(operator, ["x", "whole", "recurrent", "bias"], "states", hidden_size=hidden),
        node("MatMul", ["states", "head"], "y"),
    ]
    arrays = {name: grid.values() for name, grid in grids.items()} | {"zeroth": np.zeros(1, np.int64)}
    model = model_of(nodes, {"x": (5, 2, 12)}, {"y": (5, 1, 2, 400)}, arrays, 17)
    packed = packed_onnx.pack(model, grids)
    assert packed_names(packed) == ["head"]
    assert {"kernel", "recurrent", "bias"} <= tensors_of(packed).keys()
    assert packed.ByteSize() < sparse_onnx.to_sparse(model).ByteSize()
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 2, 12)).astype(np.float32)}
    assert np.array_equal(run(packed, feeds)[0], run(model, feeds)[0])
    assert np.array_equal(run(packed_onnx.unpack(packed), feeds)[0], run(model, feeds)[0])
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(packed.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(feeds)["y"], run(model, feeds)[0], atol=1e-5)


def test_a_file_in_which_all_initialisers_are_inputs_gets_the_version_that_needs_no_such() -> None:
    dense, made, x = network("mlp", 11, "4 bits")
    dense.ir_version = 3
    for tensor in dense.graph.initializer:
        dense.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    onnx.checker.check_model(dense, full_check=True)
    packed = packed_onnx.pack(dense, made)
    onnx.checker.check_model(packed, full_check=True)
    assert packed.ir_version == 4
    assert [info.name for info in packed.graph.input] == ["x"]
    assert np.array_equal(run(packed, {"x": x})[0], run(dense, {"x": x})[0])


@pytest.mark.parametrize("taken", [["_0", "_1"], ["_S", "_C", "__a"], ["_", "__", "___"]])
def test_names_never_collide(taken: list[str]) -> None:
    made = {name: quantised(sparse_values((64, 64), 0.1, seed)) for seed, name in enumerate(taken)}
    arrays = {name: grid.values() for name, grid in made.items()}
    packed = packed_onnx.pack(identity_model(arrays), made)
    prefix = fields_of(packed)[1]
    assert set(prefix) == {"_"}
    assert not [name for name in taken if name.startswith(prefix)]
    assert packed_names(packed) == taken
    assert_packed_is(packed, arrays)


def test_what_gains_nothing_stays_as_it_was() -> None:
    kept = {
        "not quantised": sparse_values((40, 40), 0.1),
        "ten numbers": quantised(sparse_values((10,), 1), 8).values(),
        "scalar": np.float32(0.5).reshape(()),
        "empty": np.zeros((0, 4), np.float32),
        "integers": np.zeros((30, 30), np.int64),
        "bfloat16": np.zeros((30, 30), ml_dtypes.bfloat16),
    }
    large, bias = quantised(LARGE), quantised(sparse_values((300,), 1), 8)
    made = {name: grid_of(array.astype(np.float32)) for name, array in kept.items() if name in ("scalar", "empty")}
    made["scalar"] = grid_of(1)
    made |= {"ten numbers": to_grid(kept["ten numbers"], quantised(sparse_values((10,), 1), 8).step), "large": large, "bias": bias}
    model = identity_model(kept | {"large": large.values(), "bias": bias.values()})
    packed = packed_onnx.pack(model, made)
    assert packed_names(packed) == ["large", "bias"]
    assert_same({name: array for name, array in tensors_of(packed).items() if name in kept}, kept)


def test_without_grids_only_matrices_with_zeros_that_float16_can_hold_are_rounded() -> None:
    kept = {
        "no zeros": sparse_values((50, 50), 1),
        "vector": sparse_values((2000,), 0.1),
        "too large": np.where(np.eye(60) > 0, np.float32(1e5), 0).astype(np.float32),
    }
    packed = packed_onnx.pack(identity_model(kept | {"large": LARGE}), None)
    assert packed_names(packed) == ["large"]
    assert_packed_is(packed, kept | {"large": LARGE.astype(np.float16).astype(np.float32)})


def test_a_network_that_is_too_small_for_a_decoder_has_none_and_can_be_read(tmp_path: Path) -> None:
    grid = quantised(sparse_values((5, 5), 0.2))
    model = identity_model({"w": grid.values()})
    packed_onnx.write(tmp_path / "m", model, {"w": grid})
    written = onnx.load(tmp_path / "m")
    assert fields_of(written)[:-1] == ["1", "_", "0", "0", "0", "0", "0"]
    assert written.graph == sparse_onnx.to_sparse(model).graph
    assert_same(packed_onnx.read(tmp_path / "m"), {"w": grid.values()})


def test_write_leaves_one_file_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    dense, made, _ = network("mlp", 17, "4 bits")
    assert made is not None
    packed_onnx.write(tmp_path / "model.packed.onnx", dense, made)
    first = (tmp_path / "model.packed.onnx").read_bytes()
    packed_onnx.write(tmp_path / "model.packed.onnx", dense, made)
    assert [path.name for path in tmp_path.iterdir()] == ["model.packed.onnx"]
    assert (tmp_path / "model.packed.onnx").read_bytes() == first
    assert_same(packed_onnx.read(tmp_path / "model.packed.onnx"), {name: grid.values() for name, grid in made.items()})


def test_a_packed_file_can_be_packed_again() -> None:
    dense, made, x = network("mlp", 17, "4 bits")
    once = packed_onnx.pack(dense, made)
    twice = packed_onnx.pack(once, {})
    assert np.array_equal(run(twice, {"x": x})[0], run(dense, {"x": x})[0])
    assert len([entry for entry in twice.metadata_props if entry.key == KEY]) == 1


def test_the_layout_is_the_documented_one() -> None:
    """By the documentation alone: bits, positions and codes, one after the other."""
    first, second = grid_of(np.zeros((60, 70)), 0.25), grid_of(np.zeros((50, 8, 9)), 2.0)
    for position, code in [(0, -8), (1, 8), (777, 1), (4199, -1)]:
        first.codes.reshape(-1)[position] = code
    second.codes.reshape(-1)[[5, 3599]] = [3, -2]
    bias = grid_of(np.tile(np.arange(-100, 100), 5), 0.5)
    model = identity_model({"a": first.values(), "b": second.values(), "c": bias.values()})
    packed = packed_onnx.pack(model, {"a": first, "b": second, "c": bias})

    version, prefix, count, low_bits, code_bits, sparse, dense, digest = fields_of(packed)
    assert (version, prefix, count, code_bits, sparse, dense) == ("1", "_", "6", "4", "2", "1")
    without = ModelProto.FromString(packed.SerializeToString())
    without.ClearField("metadata_props")
    assert digest == hashlib.sha256(without.SerializeToString()).hexdigest()[:32]

    stored = tensors_of(packed)
    assert stored["_C"].tolist() == 5 * list(range(-100, 100))
    bits = [byte >> index & 1 for byte in stored["_S"].reshape(-1).tolist() for index in range(8)]
    row = 4 + int(low_bits)
    ones = [index for index, bit in enumerate(bits[6 * row :]) if bit]
    found = []
    for index, one in enumerate(ones):
        number = sum(bit << place for place, bit in enumerate(bits[index * row : index * row + 4]))
        low = sum(bit << place for place, bit in enumerate(bits[index * row + 4 : (index + 1) * row]))
        found.append(((one - index) * 2 ** int(low_bits) + low, number - 8 + (number >= 8)))
    assert found == [(0, -8), (1, 8), (777, 1), (4199, -1), (4205, 3), (7799, -2)]


def test_files_are_as_small_as_measured() -> None:
    """LeNet-300-100 with random weights at the paper's densities: 8,661 bytes in the study before, some 2,400 of them the decoder."""
    shapes = {"w1": (300, 784), "b1": (300,), "w2": (100, 300), "b2": (100,), "w3": (10, 100), "b3": (10,)}
    density = {"w1": 0.011, "w2": 0.03, "w3": 0.38}
    made = {name: quantised(sparse_values(shape, density.get(name, 1)), 4 if name in density else 8) for name, shape in shapes.items()}
    nodes = [
        node("Gemm", ["x", "w1", "b1"], "h1", transB=1),
        node("Gemm", ["h1", "w2", "b2"], "h2", transB=1),
        node("Gemm", ["h2", "w3", "b3"], "y", transB=1),
    ]
    dense = model_of(nodes, {"x": ["n", 784]}, {"y": ["n", 10]}, {name: grid.values() for name, grid in made.items()})
    packed = packed_onnx.pack(dense, made)
    numbers = sum(len(tensor.raw_data) for tensor in packed.graph.initializer if tensor.name in ("_S", "_C"))
    assert packed.ByteSize() < 8_000
    assert packed.ByteSize() - numbers < 1_800


@pytest.mark.parametrize("opset", [10, 24])
def test_an_opset_without_the_operators_is_refused(opset: int) -> None:
    grid = quantised(LARGE)
    with pytest.raises(CannotPack, match=f"opset {opset}") as raised:
        packed_onnx.pack(identity_model({"w": grid.values()}, opset), {"w": grid})
    assert raised.value.param == "opset_import"
    assert raised.value.suggestion is not None


def test_what_would_not_be_folded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = quantised(LARGE)
    model = identity_model({"w": grid.values()})
    packed = packed_onnx.pack(model, {"w": grid})
    monkeypatch.setattr(packed_payload, "MAX_UNPACKED_BYTES", 4 * LARGE.size)
    with pytest.raises(CannotPack, match="in one tensor"):
        packed_onnx.pack(model, {"w": grid})
    with pytest.raises(InvalidArtifact):
        packed_onnx.unpack(packed)


def test_what_is_next_to_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_EMPTY_ELEMENTS", 4096)
    grid = grid_of(np.zeros((300, 300)))
    grid.codes[4, 4] = 1
    with pytest.raises(CannotPack, match="1 nonzeros"):
        packed_onnx.pack(identity_model({"w": grid.values()}), {"w": grid})


def sealed(model: ModelProto, fields: Sequence[str] | None = None) -> ModelProto:
    """The model with a digest that is right, as whoever forges a file makes it."""
    result = ModelProto.FromString(model.SerializeToString())
    fields = (fields_of(model) if fields is None else list(fields))[:-1]
    result.ClearField("metadata_props")
    digest = hashlib.sha256(result.SerializeToString()).hexdigest()[:32]
    result.metadata_props.append(StringStringEntryProto(key=KEY, value=" ".join([*fields, digest])))
    return result


@pytest.fixture(scope="module")
def mlp_packed() -> ModelProto:
    dense, made, _ = network("mlp", 17, "4 bits")
    return packed_onnx.pack(dense, made)


def initialiser(model: ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def put(model: ModelProto, name: str, array: np.ndarray) -> None:
    initialiser(model, name).CopyFrom(numpy_helper.from_array(array, name))


def read_by(model: ModelProto, operator: str, index: int = 1) -> str:
    """The name of an input of the first such node."""
    return next(item for item in model.graph.node if item.op_type == operator).input[index]


def all_bits(model: ModelProto) -> np.ndarray:
    return np.unpackbits(numpy_helper.to_array(initialiser(model, "_S")).reshape(-1), bitorder="little")


def set_bits(model: ModelProto, bits: np.ndarray) -> None:
    put(model, "_S", np.packbits(bits, bitorder="little").reshape(-1, 1))


def clear_last_byte(model: ModelProto) -> None:
    bits = all_bits(model)
    bits[-8:] = 0
    set_bits(model, bits)


def one_more_position(model: ModelProto) -> None:
    bits = all_bits(model)
    bits[np.flatnonzero(bits == 0)[-1]] = 1
    set_bits(model, bits)


def swap_first_rows(model: ModelProto) -> None:
    """Positions of the first bucket with two, in falling order."""
    _, _, count, low_bits, code_bits, *_ = fields_of(model)
    bits, row = all_bits(model), int(low_bits) + int(code_bits)
    bitmap = bits[int(count) * row :]
    ones = np.flatnonzero(bitmap)
    index = int(np.flatnonzero(np.diff(ones) == 1)[0])
    rows = bits[: int(count) * row].reshape(-1, row)
    rows[[index, index + 1]] = rows[[index + 1, index]]
    set_bits(model, bits)


FORGED: dict[str, Callable[[ModelProto], object]] = {
    "zeros at the end": clear_last_byte,
    "more positions than count": one_more_position,
    "falling positions": swap_first_rows,
    "stream of another type": lambda m: put(m, "_S", numpy_helper.to_array(initialiser(m, "_S")).astype(np.float32)),
    "shorter stream": lambda m: put(m, "_S", numpy_helper.to_array(initialiser(m, "_S"))[:-40]),
    "no stream": lambda m: m.graph.initializer.remove(initialiser(m, "_S")),
    "fewer codes": lambda m: put(m, "_C", np.zeros(9, np.int8)),
    "a step below zero": lambda m: put(m, read_by(m, "Mul", 1), np.array(-1, np.float32)),
    "a step that is too large": lambda m: put(m, read_by(m, "Mul", 1), np.array(3e38, np.float32)),
    "a step of another type": lambda m: put(m, read_by(m, "Mul", 1), np.array(1e300)),
    "a step of two numbers": lambda m: put(m, read_by(m, "Mul", 1), np.ones(2, np.float32)),
    "another shape": lambda m: put(m, read_by(m, "Gemm", 1), np.ones((9, 1), np.float32)),
    "a huge shape": lambda m: [
        put(m, item.input[1], np.array([2**40, 2**40])) for item in m.graph.node if item.op_type == "Reshape" and item.output[0] == "w1"
    ],
    "a negative shape": lambda m: [
        put(m, item.input[1], np.array([-30, -64])) for item in m.graph.node if item.op_type == "Reshape" and item.output[0] == "w1"
    ],
    "huge zeros": lambda m: put(m, read_by(m, "ConstantOfShape", 0), np.array([2**40, 1])),
    "another operator": lambda m: setattr(next(item for item in m.graph.node if item.op_type == "Greater"), "op_type", "Less"),
    "another weight of a bit": lambda m: put(m, read_by(m, "Gemm", 1), numpy_helper.to_array(initialiser(m, read_by(m, "Gemm", 1))) * 2),
    "a decoder that the client's graph reads": lambda m: m.graph.node.append(node("Identity", ["_1"], "z")),
    "a decoder that is an output": lambda m: m.graph.output.append(helper.make_tensor_value_info("_1", TensorProto.FLOAT, None)),
    "one initialiser more": lambda m: m.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "_zz")),
    "no nodes of the decoder": lambda m: [m.graph.node.remove(item) for item in list(m.graph.node)[:3]],
    "external data": lambda m: initialiser(m, "_S").external_data.append(StringStringEntryProto(key="location", value="/etc/passwd")),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_file_is_refused(mlp_packed: ModelProto, forge: Callable[[ModelProto], object]) -> None:
    model = ModelProto.FromString(mlp_packed.SerializeToString())
    forge(model)
    with pytest.raises(InvalidArtifact):
        packed_onnx.unpack(sealed(model))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *[(0, "2"), (0, ""), (1, "__"), (1, "w"), (2, "0"), (2, "999999999"), (2, "-1"), (3, "0"), (3, "1"), (3, "24"), (3, "99")],
        *[(4, "0"), (4, "1"), (4, "3"), (4, "9"), (5, "0"), (5, "2"), (5, "99999"), (6, "0"), (6, "3"), (6, "³")],
    ],
)
def test_forged_numbers_are_refused(mlp_packed: ModelProto, place: int, value: str) -> None:
    fields = fields_of(mlp_packed)
    assert fields[place] != value
    fields[place] = value
    with pytest.raises(InvalidArtifact):
        packed_onnx.unpack(sealed(mlp_packed, fields))


def test_sealing_changes_nothing(mlp_packed: ModelProto) -> None:
    assert sealed(mlp_packed) == mlp_packed


def test_a_file_of_another_tool_or_none_is_refused(tmp_path: Path, mlp_packed: ModelProto) -> None:
    with pytest.raises(InvalidArtifact, match="bayespress_packed"):
        packed_onnx.unpack(packed_onnx.unpack(mlp_packed))
    twice = ModelProto.FromString(mlp_packed.SerializeToString())
    twice.metadata_props.append(twice.metadata_props[0])
    with pytest.raises(InvalidArtifact):
        packed_onnx.unpack(twice)
    with pytest.raises(InvalidArtifact):
        packed_onnx.read(tmp_path / "absent")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InvalidArtifact):
        packed_onnx.read(tmp_path / "empty")


def test_a_changed_graph_is_refused_too(mlp_packed: ModelProto) -> None:
    model = ModelProto.FromString(mlp_packed.SerializeToString())
    next(item for item in model.graph.node if item.output[0] == "r1").op_type = "Tanh"
    with pytest.raises(InvalidArtifact, match="digest"):
        packed_onnx.unpack(model)


@pytest.mark.parametrize("values", ["4 bits", "float16"])
def test_of_5000_damaged_files_none_gives_other_tensors(tmp_path: Path, values: str) -> None:
    dense, made, _ = network("mlp", 17, values)
    path = tmp_path / "model.packed.onnx"
    packed_onnx.write(path, dense, made)
    content, expected = path.read_bytes(), packed_onnx.unpack(path)
    refused = 0
    for mutant in mutants(content, 2500):
        path.write_bytes(mutant)
        try:
            assert packed_onnx.unpack(path) == expected
        except InvalidArtifact:
            refused += 1
    assert refused > 2400


def test_of_forged_numbers_onnxruntime_computes_what_is_read(mlp_packed: ModelProto) -> None:
    """Whatever is changed in the numbers of the decoder: a file that can be read is one that ONNX Runtime reads in the same way."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 64)).astype(np.float32)
    read = 0
    for index in range(600):
        model = ModelProto.FromString(mlp_packed.SerializeToString())
        own = [tensor for tensor in model.graph.initializer if tensor.name.startswith("_")]
        tensor = initialiser(model, "_S") if index % 3 == 0 else own[rng.integers(len(own))]
        array = numpy_helper.to_array(tensor).copy()
        flat = array.reshape(-1).view(np.uint8)
        flat[rng.integers(flat.size)] ^= 1 << rng.integers(8)
        put(model, tensor.name, array)
        try:
            plain = packed_onnx.unpack(sealed(model))
        except InvalidArtifact:
            continue
        read += 1
        assert np.array_equal(run(model, {"x": x})[0], run(plain, {"x": x})[0])
    assert read > 50
