"""Whole runs on outputs and inputs of other kinds: sigmoids, ready-made probabilities, one of several outputs, ids beside a mask."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor import CompressionConfig, DataReference, Report, compress
from compressor.errors import LabelOutOfRange, UnsupportedTask

CONFIG = {"epochs": 8, "second_round_epochs": 10, "fine_tune_epochs": 3, "batch_size": 32, "thresholds": [0, 2], "max_metric_drop": 0.1}


def run(
    proto: onnx.ModelProto, rows: dict[str, np.ndarray], folder: Path, **options: object
) -> tuple[Report, onnxruntime.InferenceSession]:
    onnx.save(proto, folder / "model.onnx")
    np.savez(folder / "rows.npz", **rows)
    config = CompressionConfig.parse({**CONFIG, **options})
    report = compress(folder / "model.onnx", DataReference(train=str(folder / "rows.npz")), config, folder / "out")
    return report, onnxruntime.InferenceSession(folder / "out" / "model.onnx", providers=["CPUExecutionProvider"])


def two_classes(count: int = 900) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((count, 20)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)


def classifier(
    x: np.ndarray, y: np.ndarray, columns: int, ends: list[onnx.NodeProto], outputs: dict[str, list[str | int]]
) -> onnx.ModelProto:
    """Random features and least squares on the signs of the classes, then `ends` from "scores"."""
    weight = np.random.default_rng(1).normal(size=(x.shape[1], 150)).astype(np.float32)
    features = np.hstack([np.maximum(x @ weight, 0), np.ones((len(x), 1))])
    targets = np.where(y[:, None] == np.arange(columns) if columns > 1 else y[:, None] == 1, 3.0, -3.0)
    solution = np.linalg.lstsq(features, targets, rcond=1e-4)[0].astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["features"]),
        helper.make_node("Gemm", ["features", "v", "b"], ["scores"]),
        *ends,
    ]
    arrays = {"w": weight, "v": solution[:-1], "b": solution[-1]}
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", x.shape[1]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SIGMOID = [helper.make_node("Sigmoid", ["scores"], ["p"])]
# As scikit-learn's binary classifiers are exported: both probabilities, and no softmax.
BOTH = [
    *SIGMOID,
    helper.make_node("Constant", [], ["one"], value_float=1.0),
    helper.make_node("Sub", ["one", "p"], ["q"]),
    helper.make_node("Concat", ["q", "p"], ["both"], axis=1),
]
FLAT = [*SIGMOID, helper.make_node("Constant", [], ["flat"], value_ints=[-1]), helper.make_node("Reshape", ["p", "flat"], ["row"])]


@pytest.mark.parametrize(
    ("columns", "ends", "output", "shape"),
    [(1, SIGMOID, "p", ["n", 1]), (1, FLAT, "row", ["n"]), (2, SIGMOID, "p", ["n", 2]), (1, BOTH, "both", ["n", 2])],
    ids=["one sigmoid", "one sigmoid, flat", "a sigmoid for each class", "both probabilities"],
)
def test_probabilities_of_every_kind_are_trained_and_measured(columns, ends, output, shape, tmp_path):
    x, y = two_classes()
    report, session = run(classifier(x, y, columns, ends, {output: shape}), {"x": x, "y": y}, tmp_path)
    with np.load(tmp_path / "out" / "split.npz") as split:
        test = split["test"]
    found = session.run([output], {"x": x[test]})[0]
    classes = (found.reshape(-1) > 0.5) if found.size == len(found) else found.argmax(1)
    assert (classes == y[test]).mean() == pytest.approx(report.metric.compressed.value)
    assert report.inputs.num_classes == 2
    assert report.metric.compressed.value > 0.75
    assert report.budget.met
    assert report.weights.compression_ratio > 2
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_single_sigmoid_has_two_classes(tmp_path):
    x, y = two_classes()
    with pytest.raises(LabelOutOfRange, match="2 classes"):
        run(classifier(x, y, 1, SIGMOID, {"p": ["n", 1]}), {"x": x, "y": y + 1}, tmp_path)


def test_the_output_is_chosen_by_name(tmp_path):
    x, y = two_classes()
    ends = [helper.make_node("Relu", ["features"], ["hidden"]), helper.make_node("Softmax", ["scores"], ["p"])]
    proto = classifier(x, y, 2, ends, {"hidden": ["n", 150], "p": ["n", 2]})
    report, session = run(proto, {"x": x, "y": y}, tmp_path, output="p")
    assert report.inputs.num_classes == 2
    assert report.metric.dense.value > 0.7
    assert [output.name for output in session.get_outputs()] == ["hidden", "p"]
    with pytest.raises(UnsupportedTask) as error:
        run(proto, {"x": x, "y": y}, tmp_path, output="q")
    assert error.value.param == "output"
    assert "'hidden', 'p'" in str(error.value.suggestion)


@pytest.mark.parametrize("output", ["scores", "p"])
def test_an_output_that_another_one_is_made_of_may_be_taken(output, tmp_path):
    """Scores and their softmax, both given out, as many exports have them."""
    x, y = two_classes()
    proto = classifier(x, y, 2, [helper.make_node("Softmax", ["scores"], ["p"])], {"scores": ["n", 2], "p": ["n", 2]})
    proto.graph.initializer[0].doc_string = "what the client says of it"
    proto.graph.initializer[0].metadata_props.add(key="author", value="the client")
    report, session = run(proto, {"x": x, "y": y}, tmp_path, output=output)
    assert report.metric.compressed.value > 0.7
    delivered = onnx.load(tmp_path / "out" / "model.onnx")
    assert [info.name for info in delivered.graph.output] == ["scores", "p"]
    assert [len(info.type.tensor_type.shape.dim) for info in delivered.graph.output] == [2, 2]
    (constant,) = [part for part in (*delivered.graph.initializer, *delivered.graph.node) if part.doc_string]
    assert constant.doc_string == "what the client says of it"
    assert [(entry.key, entry.value) for entry in constant.metadata_props] == [("author", "the client")]
    scores, p = session.run(["scores", "p"], {"x": x[:5]})
    np.testing.assert_allclose(p, np.exp(scores) / np.exp(scores).sum(1, keepdims=True), rtol=1e-5)


def test_ids_and_their_mask_are_two_inputs(tmp_path):
    """A bag of words that is told which tokens count; those that do not count are misleading."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 900)
    mask = (generator.random((900, 10)) < 0.6).astype(np.int64)
    mask[:, 0] = 1
    told, other = generator.integers(0, 4, (900, 10)) + 4 * labels[:, None], generator.integers(0, 12, (900, 10))
    ids = np.where(mask == 1, np.where(generator.random((900, 10)) < 0.8, told, other), other)
    table = np.kron(np.eye(3), np.ones((4, 1))).astype(np.float32) + generator.normal(0, 0.1, (12, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("Cast", ["mask"], ["float_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float_mask", "last"], ["column"]),
        helper.make_node("Mul", ["words", "column"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "middle"], ["bag"], keepdims=0),
        helper.make_node("MatMul", ["bag", "w"], ["scores"]),
    ]
    arrays = {"table": table, "w": 2 * np.eye(3, dtype=np.float32), "last": np.array([2]), "middle": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "bag",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in ("mask", "ids")],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    report, session = run(proto, {"ids": ids, "mask": mask, "y": labels}, tmp_path, max_metric_drop=0.01)
    scores = session.run(None, {"ids": ids, "mask": mask})[0]
    assert (scores.argmax(1) == labels).mean() > 0.9
    assert report.budget.met
    assert {layer.name for layer in report.weights.layers} == {"table", "w"}
