"""What is refused before any training, and what must not be."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor import CompressionConfig, DataReference, Report, compress
from compressor.admission import training_cost
from compressor.config import CompressionConfig as Config
from compressor.errors import GraphTooLarge, InvalidConfig, LabelOutOfRange, ShapeMismatch, UnsupportedTask
from compressor.graph.module import OnnxModule

BRIEF = {"epochs": 1, "second_round_epochs": 1, "fine_tune_epochs": 1, "thresholds": [1], "max_branches": 1}


def run(model: Path, train: Path, out: Path, **options: object) -> Report:
    return compress(model, DataReference(train=str(train)), CompressionConfig.parse({**BRIEF, **options}), out)


def with_shapes(model: Path, path: Path, inputs: list[str | int], outputs: list[str | int] | None) -> Path:
    """The same graph with other declared shapes."""
    proto = onnx.load(model)
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, outputs))
    onnx.save(proto, path)
    return path


def test_rows_sorted_by_class_are_no_reason_to_refuse_the_model(digits_job, tmp_path):
    x, y = (np.concatenate([digits_job.rows["train"][part], digits_job.rows["train"][part]]) for part in (0, 1))
    order = np.argsort(y, kind="stable")
    np.savez(tmp_path / "sorted.npz", x=x[order], y=y[order])
    assert run(digits_job.model, tmp_path / "sorted.npz", tmp_path / "out").metric.dense.value > 0.9


def test_by_default_a_step_has_as_many_rows_as_fit(digits_job, tmp_path, monkeypatch):
    train = Path(digits_job.data.train)
    module = OnnxModule(onnx.load(digits_job.model))
    for_eight_rows = training_cost(module, [torch.zeros(8, 64)]).bytes
    assert run(digits_job.model, train, tmp_path / "all").training.batch_size == 32
    monkeypatch.setattr("compressor.admission.available_bytes", lambda: for_eight_rows)
    assert run(digits_job.model, train, tmp_path / "few").training.batch_size == 8
    with pytest.raises(GraphTooLarge) as error:
        run(digits_job.model, train, tmp_path / "many", batch_size=32)
    assert "batch_size" in str(error.value.suggestion)


def test_a_graph_that_declares_no_sizes_takes_them_from_the_rows(digits_job, tmp_path):
    model = with_shapes(digits_job.model, tmp_path / "open.onnx", ["n", "features"], ["n", "classes"])
    report = run(model, Path(digits_job.data.train), tmp_path / "out")
    assert report.inputs.num_classes == 10


def test_rows_that_do_not_fit_a_graph_without_sizes_are_the_clients_error(digits_job, tmp_path):
    model = with_shapes(digits_job.model, tmp_path / "open.onnx", ["n", "features"], ["n", "classes"])
    x, y = digits_job.rows["train"]
    np.savez(tmp_path / "narrow.npz", x=x[:, :60], y=y)
    with pytest.raises(ShapeMismatch) as error:
        run(model, tmp_path / "narrow.npz", tmp_path / "out")
    assert error.value.param == "dataset"
    assert "60" in error.value.detail
    np.savez(tmp_path / "labels.npz", x=x, y=y + 5)
    with pytest.raises(LabelOutOfRange):
        run(model, tmp_path / "labels.npz", tmp_path / "out")


def test_an_output_that_is_no_class_score_is_another_task(digits_job, tmp_path):
    model = with_shapes(digits_job.model, tmp_path / "one.onnx", ["n", 64], ["n", 10])
    proto = onnx.load(model)
    proto.graph.node.append(helper.make_node("ReduceMean", ["scores"], ["value"], axes=[1], keepdims=1))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 1]))
    onnx.save(proto, model)
    with pytest.raises(UnsupportedTask):
        run(model, Path(digits_job.data.train), tmp_path / "out")


def test_numbers_beside_an_image_are_not_scaled_like_pixels(tmp_path):
    """Two inputs by name, [N, 1, 8, 8] pixels and [N, 4] numbers; the class is told by the numbers alone."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    numbers = np.stack([labels * 2.0 - 1.0, *generator.normal(size=(3, 300))], axis=1).astype(np.float32)
    pixels = generator.integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", image=pixels, numbers=numbers, y=labels)
    weight = np.zeros((68, 2), np.float32)
    weight[64] = [-3, 3]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Concat", ["flat", "numbers"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "weight"], ["scores"]),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["n", 4]),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "two", inputs, outputs, [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "two.onnx")
    report = run(tmp_path / "two.onnx", tmp_path / "train.npz", tmp_path / "out")
    assert report.metric.dense.value == 1.0


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", True), ("epochs", "5"), ("beta", "1"), ("max_metric_drop", True), ("thresholds", ["0"])]
)
def test_options_are_not_guessed_from_other_types(key, value):
    with pytest.raises(InvalidConfig) as error:
        Config.parse({key: value})
    assert str(error.value.param).startswith(key)


def test_whole_numbers_are_numbers():
    assert Config.parse({"beta": 1, "thresholds": [0, 2]}).thresholds == (0.0, 2.0)
