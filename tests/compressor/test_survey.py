"""What an inspection says of models written by hand, without training any."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from compressor import CompressionConfig, Inspection, compress, inspect
from compressor.admission import training_cost
from compressor.errors import DeviceUnavailable, InvalidModel, NoWeights, UnsupportedOperator, UnsupportedTask
from compressor.graph.module import OnnxModule
from compressor.graph.ops import Flow
from compressor.inspection import Treatment
from tests.compressor.graph.models import linear_model, model_of, node, values
from tests.compressor.graph.networks import exported

LINEAR, CONVOLUTION, LOOKUP, SAMPLED = (flow.value for flow in (Flow.LINEAR, Flow.CONVOLUTION, Flow.LOOKUP, Flow.SAMPLED))


def inspected(model: ModelProto | bytes, folder: Path, **options: object) -> Inspection:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return inspect(path, CompressionConfig.parse(options))


def treatments(found: Inspection) -> dict[str, list[Treatment]]:
    return {weight.name: weight.treatments for weight in found.weights}


def test_the_smallest_model_is_told_whole(tmp_path: Path) -> None:
    model = linear_model()
    model.producer_name, model.producer_version = "hand", "1"
    found = inspected(model, tmp_path)
    data = (tmp_path / "model.onnx").read_bytes()
    assert (found.file.bytes, found.file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (found.file.opset, found.file.producer) == (17, "hand 1")
    assert found.file.operators == {"Gemm": 1, "MatMul": 1, "Relu": 1, "Softmax": 1}
    assert [spec.model_dump() for spec in found.inputs] == [{"name": "x", "dtype": "float32", "shape": (None, 4)}]
    assert [spec.model_dump() for spec in found.outputs] == [
        {"name": "y", "dtype": "float32", "shape": (None, 3), "taken": True, "selectable": True}
    ]
    assert (found.head, found.num_classes, found.batch) == ("softmax", 3, "dynamic")
    assert found.parameters.model_dump() == {"numel": 40, "variational": 35, "without_noise": 5, "fixed": 0}
    assert (treatments(found), found.treatments) == ({"w1": [LINEAR], "w2": [LINEAR]}, {LINEAR: 35})
    assert (found.coverage, found.not_covered, found.warnings) == (1.0, [], [])
    assert found.verdict.startswith("35 of 40 parameters, in 2 tensors, will be variational: 100.0% of the elements of all tensors")
    assert found.verdict.endswith("s for every 1,000 rows on this machine.")


def test_a_tied_embedding_is_looked_up_and_multiplied(tmp_path: Path) -> None:
    found = inspected(exported("embedding", "dynamo"), tmp_path)
    (tied,) = found.weights
    assert tied.treatments == [LINEAR, LOOKUP]
    assert found.treatments == {LINEAR: tied.numel, LOOKUP: tied.numel}
    assert found.inputs[0].dtype == "int64"


def test_matrices_of_a_recurrent_layer_are_said_to_be(tmp_path: Path) -> None:
    found = inspected(exported("lstm", "legacy-17"), tmp_path)
    assert sorted(map(tuple, treatments(found).values())) == [(LINEAR,)] * 3 + [(SAMPLED,)] * 2


def test_a_mask_a_bias_and_what_nobody_needs_are_not_covered_and_why(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], "h"),
        node("Add", ["h", "mask"], "masked"),
        node("Add", ["masked", "shift"], "y"),
        node("MatMul", ["x", "spare"], "z"),
    ]
    arrays = {"w": values(4, 3), "mask": np.full((1, 3), -1e9, np.float32), "shift": values(1, 3), "spare": values(4, 9)}
    found = inspected(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3], "z": ["n", 9]}, arrays), tmp_path)
    assert {tensor.name: (tensor.trained, tensor.reason) for tensor in found.not_covered} == {
        "mask": (False, "it is a fixed mask (Add node 'masked')"),
        "shift": (True, "it meets the data outside of a weight slot (Add node 'y')"),
        "spare": (False, "the output 'y' does not need it"),
    }
    assert found.coverage == pytest.approx(12 / (12 + 3 + 3 + 36))
    assert found.parameters.model_dump() == {"numel": 54, "variational": 12, "without_noise": 3, "fixed": 39}
    assert found.file.num_nodes_left_out == 1
    assert found.file.operators == {"Add": 2, "MatMul": 1}
    assert any(warning.startswith("1 nodes are left out") for warning in found.warnings)
    assert any(warning.startswith("Only 22.2% of the elements") for warning in found.warnings)


def test_another_output_may_be_named_and_only_a_float_one(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], "y"), node("MatMul", ["y", "v"], "z"), node("ArgMax", ["y"], "label", axis=1, keepdims=0)]
    outputs = {"label": ["n"], "y": ["n", 3], "z": ["n", 2]}
    model = model_of(nodes, {"x": ["n", 4]}, outputs, {"w": values(4, 3), "v": values(3, 2)}, types={"label": TensorProto.INT64})
    found = inspected(model, tmp_path)
    assert [(spec.name, spec.dtype, spec.taken, spec.selectable) for spec in found.outputs] == [
        ("label", "int64", False, False),
        ("y", "float32", True, True),
        ("z", "float32", False, True),
    ]
    other = inspected(model, tmp_path, output="z")
    assert (other.num_classes, [spec.name for spec in other.outputs if spec.taken]) == (2, ["z"])
    assert {weight.name for weight in other.weights} == {"w", "v"}
    with pytest.raises(UnsupportedTask):
        inspected(model, tmp_path, output="label")


def test_an_output_that_is_no_tensor_is_shown(tmp_path: Path) -> None:
    """As scikit-learn's classifiers have it."""
    nodes = [node("MatMul", ["x", "w"], "y"), helper.make_node("ZipMap", ["y"], ["map"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])]
    model = model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 2]}, {"w": values(4, 2)})
    element = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output.append(helper.make_value_info("map", helper.make_sequence_type_proto(element)))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    found = inspected(model, tmp_path)
    assert found.outputs[1].model_dump() == {"name": "map", "dtype": "sequence_type", "shape": None, "taken": False, "selectable": False}


def test_half_precision_is_said_with_the_types_of_the_file(tmp_path: Path) -> None:
    halves = {"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT16}
    model = model_of(
        [node("MatMul", ["x", "w"], "y")], {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3).astype(np.float16)}, types=halves
    )
    found = inspected(model, tmp_path)
    assert (found.inputs[0].dtype, found.outputs[0].dtype) == ("float16", "float16")
    assert found.warnings == ["Half precision is trained in float32 and written back as it was."]


@pytest.mark.parametrize(("exporter", "batch"), [("legacy-17", "dynamic"), ("legacy-static", "built in")])
def test_a_batch_of_one_that_is_built_in_runs_row_by_row(tmp_path: Path, exporter: str, batch: str) -> None:
    found = inspected(exported("lenet", exporter), tmp_path)
    assert found.batch == batch
    assert any("row" in warning for warning in found.warnings) == (batch != "dynamic")


def test_a_batch_size_that_is_only_declared_does_not_count(tmp_path: Path) -> None:
    found = inspected(linear_model(rows=8), tmp_path)
    assert (found.batch, found.inputs[0].shape) == ("declared", (8, 4))
    assert found.warnings == []


def test_sizes_left_open_are_assumed_and_said(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["table", "tokens"], "rows"),
        node("ReduceMean", ["rows"], "mean", axes=[1], keepdims=0),
        node("MatMul", ["mean", "w"], "y"),
    ]
    arrays = {"table": values(9, 4), "w": values(4, 3)}
    model = model_of(nodes, {"tokens": ["n", "length"]}, {"y": ["n", 3]}, arrays, types={"tokens": TensorProto.INT64})
    found = inspected(model, tmp_path)
    assert found.estimate is not None
    assert found.estimate.assumed_shapes == {"tokens": (32,)}
    assert any("assumed sizes (tokens: [32])" in warning for warning in found.warnings)


def test_where_no_assumed_size_runs_there_is_no_estimate(tmp_path: Path) -> None:
    model = model_of([node("MatMul", ["x", "w"], "y")], {"x": ["n", "features"]}, {"y": ["n", 3]}, {"w": values(7, 3)})
    found = inspected(model, tmp_path)
    assert found.estimate is None
    assert any("none of the sizes" in warning for warning in found.warnings)
    assert found.verdict.endswith("two or more dimensions.")


def test_probabilities_that_no_softmax_made_are_seen(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], "scores"),
        node("Exp", ["scores"], "positive"),
        node("ReduceSum", ["positive", "axes"], "sum"),
        node("Div", ["positive", "sum"], "y"),
    ]
    model = model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3), "axes": np.array([1])})
    found = inspected(model, tmp_path)
    assert found.head == "probabilities"
    assert any("logarithm" in warning for warning in found.warnings)


def test_the_memory_of_a_batch_is_what_a_run_counts(tmp_path: Path) -> None:
    for name in ("lenet", "encoder"):
        data = exported(name, "dynamo")
        found = inspected(data, tmp_path, batch_size=100)
        assert found.estimate is not None
        module = OnnxModule(onnx.load_from_string(data))
        assert module.example is not None
        cost = training_cost(module, [tensor[:1].expand(100, *tensor.shape[1:]) for tensor in module.example])
        assert found.estimate.training_bytes == pytest.approx(cost.bytes, rel=0.02)
        assert found.estimate.flops_per_row * 100 == pytest.approx(cost.flops, rel=0.02)
        assert found.estimate.batch_size == 100


def test_a_batch_that_does_not_fit_comes_with_one_that_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = inspected(exported("lenet", "dynamo"), tmp_path).estimate
    assert small is not None
    monkeypatch.setattr("compressor.estimate.available_bytes", lambda: small.training_bytes // 2)
    by_default = inspected(exported("lenet", "dynamo"), tmp_path)
    assert by_default.estimate is not None
    assert (by_default.estimate.batch_size, by_default.warnings) == (64, [])
    found = inspected(exported("lenet", "dynamo"), tmp_path, batch_size=256)
    assert found.estimate is not None
    assert 100 < found.estimate.largest_batch_size < 128
    assert any(f"set batch_size to {found.estimate.largest_batch_size} or less" in warning for warning in found.warnings)


def test_a_machine_without_memory_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.admission.available_bytes", lambda: 1000)
    found = inspected(exported("lenet", "dynamo"), tmp_path)
    assert found.estimate is None
    assert "Not even four rows" in found.warnings[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_as_a_run_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable):
        inspected(linear_model(), tmp_path, device="cuda")


def test_several_outputs_come_with_the_option_that_chooses(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], "hidden"), node("MatMul", ["hidden", "v"], "scores")]
    model = model_of(nodes, {"x": ["n", 4]}, {"hidden": ["n", 5], "scores": ["n", 3]}, {"w": values(4, 5), "v": values(5, 3)})
    found = inspected(model, tmp_path)
    assert "The output 'hidden' is taken; the option `output` names another one: 'scores'." in found.warnings
    assert {output.name: output.shape for output in found.outputs} == {"hidden": (None, 5), "scores": (None, 3)}
    assert inspected(model, tmp_path, output="scores").warnings == []


def test_it_leaves_the_random_numbers_and_the_threads_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    inspected(linear_model(), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


REFUSED: dict[str, tuple[ModelProto | bytes, type[Exception]]] = {
    "no model": (b"text", InvalidModel),
    "no float output": (
        model_of([node("Multinomial", ["x"], "y")], {"x": ["n", 3]}, {"y": ["n", 1]}, types={"y": TensorProto.INT32}),
        UnsupportedTask,
    ),
    "missing operator": (model_of([node("Bernoulli", ["x"], "y")], {"x": ["n", 3]}, {"y": ["n", 3]}), UnsupportedOperator),
    "no weights": (model_of([node("Relu", ["x"], "y")], {"x": ["n", 3]}, {"y": ["n", 3]}), NoWeights),
    "an image for an image": (
        model_of([node("Conv", ["x", "w"], "y")], {"x": ["n", 2, 5, 5]}, {"y": ["n", 2, 3, 3]}, {"w": values(2, 2, 3, 3)}),
        UnsupportedTask,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_run_would_refuse_is_refused(tmp_path: Path, case: str) -> None:
    model, error = REFUSED[case]
    with pytest.raises(error):
        inspected(model, tmp_path)


def test_what_is_inspected_is_what_a_run_takes(digits_job, tmp_path: Path) -> None:
    found = inspect(digits_job.model)
    brief = {"epochs": 1, "second_round_epochs": 1, "fine_tune_epochs": 1, "thresholds": [1], "max_branches": 1}
    report = compress(digits_job.model, digits_job.data, CompressionConfig.parse(brief), tmp_path)
    assert report.weights.numel == found.parameters.variational + sum(tensor.numel for tensor in found.not_covered)
    assert report.parameters.numel == found.parameters.numel
    assert report.inputs.num_classes == found.num_classes


def test_words_for_treatments_are_those_of_the_operators() -> None:
    assert set(get_args(Treatment.__value__)) == {LINEAR, CONVOLUTION, LOOKUP, SAMPLED}


def test_phases_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model().SerializeToString())
    phases: list[str] = []
    inspect(path, on_progress=lambda progress: phases.append(progress.phase))
    assert phases == ["validate", "estimate"]


def test_inspection_schema_is_published_as_it_is() -> None:
    """compressor/inspection.schema.json is what consumers validate against; it is made by `make schema`."""
    assert json.loads(files("compressor").joinpath("inspection.schema.json").read_text()) == Inspection.model_json_schema()
