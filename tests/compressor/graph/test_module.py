"""OnnxModule: which tensors it has, which output it computes, how it treats batches, modes and names."""

import copy
from itertools import pairwise

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.errors import InvalidModel, NoWeights, UnsupportedModel, UnsupportedOperator, UnsupportedTask
from compressor.graph.gaussian import GaussianValue
from compressor.graph.module import OnnxModule, ValueSpec
from compressor.graph.validate import parse_model
from compressor.graph.write import write_arrays
from tests.compressor.graph.models import linear_model, model_of, node, values
from tests.compressor.graph.networks import export, exported, network


def test_it_describes_its_input_and_output() -> None:
    module = OnnxModule(linear_model())
    assert module.inputs == (ValueSpec("x", torch.float32, (None, 4)),)
    assert module.output == ValueSpec("y", torch.float32, (None, 3))
    assert module.static_batch is None
    assert module.weight_names == ("w1", "w2")
    assert {name: tuple(tensor.shape) for name, tensor in module.tensors().items()} == {"w1": (4, 5), "b1": (5,), "w2": (5, 3)}


def test_values_take_the_place_of_tensors() -> None:
    module = OnnxModule(linear_model())
    x = torch.randn(6, 4)
    zero = {"w2": torch.zeros(5, 3)}
    torch.testing.assert_close(module(x, values=zero), torch.full((6, 3), 1 / 3))
    with pytest.raises(ValueError, match="nothing"):
        module(x, values={"nothing": torch.zeros(1)})
    with pytest.raises(ValueError, match="1 inputs, 2 were given"):
        module(x, x)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_logits_are_what_goes_into_the_final_softmax(operator: str) -> None:
    model = linear_model()
    model.graph.node[-1].op_type = operator
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.append(node("Identity", ["inner"], "y"))
    module = OnnxModule(parse_model(model.SerializeToString()))
    x = torch.randn(6, 4)
    logits = module(x, logits=True)
    assert not torch.allclose(logits, module(x))
    function = torch.softmax if operator == "Softmax" else torch.log_softmax
    torch.testing.assert_close(function(logits, 1), module(x))


@pytest.mark.parametrize(
    ("ends", "shape"),
    [
        ([node("Sigmoid", ["scores"], "p"), node("Squeeze", ["p", "last"], "y")], ["n"]),
        ([node("Sigmoid", ["scores"], "p"), node("Reshape", ["p", "flat"], "y")], ["n"]),
        ([node("Reshape", ["scores", "flat"], "s"), node("Sigmoid", ["s"], "y")], ["n"]),
    ],
    ids=["squeezed", "reshaped", "reshaped before"],
)
def test_a_sigmoid_may_be_reshaped(ends: list[NodeProto], shape: list[str | int]) -> None:
    arrays = {"w": values(4, 1), "last": np.array([1]), "flat": np.array([-1])}
    module = OnnxModule(model_of([node("MatMul", ["x", "w"], "scores"), *ends], {"x": ["n", 4]}, {"y": shape}, arrays))
    x = torch.randn(3, 4)
    assert (module.head, module.output.shape) == ("sigmoid", (None,))
    torch.testing.assert_close(torch.sigmoid(module(x, logits=True)).reshape(-1), module(x))


def test_a_softmax_over_the_batch_is_none_over_classes() -> None:
    nodes = [node("MatMul", ["x", "w"], "scores"), node("Softmax", ["scores"], "y", axis=0)]
    assert OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)})).head == "scores"


def test_sizes_that_depend_on_constants_alone_are_known() -> None:
    nodes = [
        node("ConstantOfShape", ["size"], "nothing"),
        node("Equal", ["nothing", "zero"], "everywhere"),
        node("NonZero", ["everywhere"], "places"),
        node("Squeeze", ["places", "first"], "columns"),
        node("Gather", ["x", "columns"], "same", axis=1),
        node("Compress", ["same", "chosen"], "half", axis=1),
        node("MatMul", ["half", "w"], "y"),
    ]
    arrays = {"size": np.array([8]), "zero": np.zeros(1, np.float32), "first": np.array([0]), "chosen": np.array([True, False] * 4)}
    model = model_of(nodes, {"x": ["n", 8]}, {"y": ["n", 3]}, {**arrays, "w": values(4, 3)})
    x = torch.randn(5, 8)
    torch.testing.assert_close(OnnxModule(model)(x).detach(), x[:, ::2] @ torch.from_numpy(values(4, 3)))


def test_what_a_mask_lets_through_is_not_trained() -> None:
    nodes = [node("Where", ["mask", "low", "nothing"], "bias"), node("MatMul", ["x", "w"], "scores"), node("Add", ["scores", "bias"], "y")]
    arrays = {"mask": np.eye(3, dtype=bool), "low": np.float32(-1e9), "nothing": np.zeros((3, 3), np.float32), "w": values(4, 3)}
    module = OnnxModule(model_of(nodes, {"x": ["n", 3, 4]}, {"y": ["n", 3, 3]}, arrays))
    assert module.tensors().keys() == {"w"}
    assert "zero all over" in module.uncovered["nothing"]


def cast_after_softmax(*kinds: int) -> OnnxModule:
    """A model in half precision whose probabilities are cast to `kinds`, one after the other."""
    names = ["inner", *(f"cast{index}" for index in range(len(kinds) - 1)), "y"]
    nodes = [node("MatMul", ["x", "w"], "scores"), node("Softmax", ["scores"], "inner", axis=1)]
    nodes += [node("Cast", [before], after, to=kind) for kind, (before, after) in zip(kinds, pairwise(names), strict=True)]
    arrays, types = {"w": values(4, 3).astype(np.float16)}, {"x": TensorProto.FLOAT16, "y": kinds[-1]}
    return OnnxModule(parse_model(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, arrays, types=types).SerializeToString()))


@pytest.mark.parametrize("kinds", [(TensorProto.FLOAT,), (TensorProto.DOUBLE, TensorProto.FLOAT16)])
def test_logits_are_found_before_a_softmax_whose_type_is_cast(kinds: tuple[int, ...]) -> None:
    module = cast_after_softmax(*kinds)
    x = torch.randn(6, 4)
    torch.testing.assert_close(module(x, logits=True), x @ module.tensors()["w"])
    torch.testing.assert_close(torch.softmax(module(x, logits=True), 1), module(x), check_dtype=False)


def test_a_cast_to_integers_is_no_change_of_type_alone() -> None:
    with pytest.raises(NoWeights):
        cast_after_softmax(TensorProto.INT32, TensorProto.FLOAT)


def test_without_a_softmax_logits_are_the_output() -> None:
    module = OnnxModule(model_of([node("MatMul", ["x", "w"], "y")], {"x": ["n", 4]}, {"y": ["n", 2]}, {"w": values(4, 2)}))
    x = torch.randn(3, 4)
    assert torch.equal(module(x), module(x, logits=True))


def two_headed() -> ModelProto:
    nodes = [
        node("MatMul", ["x", "w"], "scores"),
        node("ArgMax", ["scores"], "label", axis=1),
        node("MatMul", ["scores", "v"], "product"),
        node("Bernoulli", ["product"], "other"),
    ]
    outputs = {"label": ["n", 1], "scores": ["n", 3], "other": ["n", 2]}
    return model_of(nodes, {"x": ["n", 4]}, outputs, {"w": values(4, 3), "v": values(3, 2)}, types={"label": TensorProto.INT64})


def test_the_first_float_output_is_taken_and_only_its_ancestors() -> None:
    module = OnnxModule(two_headed())
    assert module.output.name == "scores"
    assert module.tensors().keys() == {"w"}


def test_an_output_can_be_named() -> None:
    with pytest.raises(UnsupportedOperator, match=r"Bernoulli node 'other'.*opset 17"):
        OnnxModule(two_headed(), output="other")
    with pytest.raises(UnsupportedTask, match="no float output 'label'") as caught:
        OnnxModule(two_headed(), output="label")
    assert caught.value.suggestion is not None
    assert "'scores'" in caught.value.suggestion


def test_a_label_beside_the_probabilities_is_left_out() -> None:
    """As scikit-learn's classifiers are exported: the label comes from operators of ai.onnx.ml."""
    nodes = [
        node("MatMul", ["x", "w"], "scores"),
        node("ArgMax", ["scores"], "place", axis=1),
        helper.make_node("ArrayFeatureExtractor", ["classes", "place"], ["label"], domain="ai.onnx.ml"),
        node("Softmax", ["scores"], "probabilities"),
    ]
    outputs = {"label": [1, "n"], "probabilities": ["n", 3]}
    arrays = {"w": values(4, 3), "classes": np.array([7, 8, 9])}
    model = model_of(nodes, {"x": ["n", 4]}, outputs, arrays, types={"label": TensorProto.INT64})
    model.opset_import.add(domain="ai.onnx.ml", version=1)
    module = OnnxModule(parse_model(model.SerializeToString()))
    assert module.output.name == "probabilities"
    assert module.tensors().keys() == {"w"}
    with pytest.raises(UnsupportedTask):
        OnnxModule(model, output="label")


def test_inputs_are_cast_to_what_the_file_declares() -> None:
    nodes = [node("Cast", ["x"], "f", to=TensorProto.DOUBLE), node("MatMul", ["f", "w"], "y")]
    types = {"x": TensorProto.INT32, "y": TensorProto.DOUBLE}
    module = OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 2]}, {"w": values(4, 2).astype(np.float64)}, types=types))
    assert module(torch.ones(3, 4)).dtype == torch.float64
    assert module.tensors()["w"].dtype == torch.float64


def test_every_missing_operator_is_named() -> None:
    nodes = [
        node("Bernoulli", ["x"], "a", name="first"),
        node("Unique", ["a"], "b", name="second"),
        node("Cast", ["b"], "y", to=TensorProto.FLOAT),
    ]
    with pytest.raises(UnsupportedOperator) as caught:
        OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": [2, None]}, {"w": values(4, 3)}))
    assert "Bernoulli node 'first' (opset 17)" in caught.value.detail
    assert "Unique node 'second' (opset 17)" in caught.value.detail
    assert caught.value.suggestion is not None


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(NoWeights):
        OnnxModule(model_of([node("Relu", ["x"], "y")], {"x": ["n", 4]}, {"y": ["n", 4]}))


def test_a_model_without_a_float_output_is_refused() -> None:
    model = two_headed()
    del model.graph.output[1:]
    with pytest.raises(UnsupportedTask):
        OnnxModule(model)


def test_a_graph_that_does_not_run_is_refused_with_the_place() -> None:
    model = model_of([node("MatMul", ["x", "w"], "y", name="product")], {"x": ["n", 5]}, {"y": ["n", 2]}, {"w": values(4, 2)})
    with pytest.raises(InvalidModel, match="MatMul node 'product'"):
        OnnxModule(model)


def test_single_numbers_settings_and_statistics_are_not_trained() -> None:
    nodes = [
        node("Div", ["x", "scale"], "unit"),
        node("Conv", ["unit", "w", "bias"], "c"),
        node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], "n"),
        node("Clip", ["n", "low", "high"], "clipped"),
        node("Mul", ["clipped", "gain"], "y"),
    ]
    ones = np.ones(1, np.float32)
    arrays = {"scale": 255 * ones, "w": values(1, 1, 2, 2), "bias": ones, "gamma": ones, "beta": ones, "mean": ones, "var": ones}
    arrays |= {"low": np.float32(0), "high": np.float32(6), "gain": values(3)}
    module = OnnxModule(model_of(nodes, {"x": ["n", 1, 4, 4]}, {"y": ["n", 1, 3, 3]}, {k: np.array(v) for k, v in arrays.items()}))
    assert module.tensors().keys() == {"w", "bias", "gamma", "beta", "gain"}
    assert len(list(module.buffers())) == 3
    before = [buffer.clone() for buffer in module.buffers()]
    module.train()(torch.randn(8, 1, 4, 4)).sum().backward()
    assert all(torch.equal(old, new) for old, new in zip(before, module.buffers(), strict=True))
    assert all(tensor.grad is not None for tensor in module.parameters())


def test_weights_in_constant_nodes_are_found() -> None:
    dense = values(4, 3)
    sparse = np.zeros((3, 5), np.float32)
    sparse[0, 1], sparse[2, 4] = 1.5, -2.0
    sparse_tensor = helper.make_sparse_tensor(
        helper.make_tensor("", TensorProto.FLOAT, [2], [1.5, -2.0]), helper.make_tensor("", TensorProto.INT64, [2], [1, 14]), [3, 5]
    )
    nodes = [
        node("Constant", [], "w1", value=numpy_helper.from_array(dense)),
        node("Constant", [], "w2", sparse_value=sparse_tensor),
        node("Constant", [], "shift", value_floats=[1.0, 2.0, 3.0, 4.0, 5.0]),
        node("Constant", [], "shape", value_ints=[-1, 5]),
        node("Constant", [], "factor", value_float=2.0),
        node("MatMul", ["x", "w1"], "a"),
        node("MatMul", ["a", "w2"], "b"),
        node("Add", ["b", "shift"], "c"),
        node("Mul", ["c", "factor"], "d"),
        node("Reshape", ["d", "shape"], "y"),
    ]
    module = OnnxModule(parse_model(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 5]}).SerializeToString()))
    assert module.tensors().keys() == {"w1", "w2", "shift"}
    assert module.weight_names == ("w1", "w2")
    x = values(2, 4)
    expected = (x @ dense @ sparse + np.arange(1, 6)) * 2
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_names_of_the_file_become_no_attributes() -> None:
    names = ["p0", "__class__", "../../etc/passwd", "{0.__class__}", "forward", "a'] + __import__('os').system('x') + ['"]
    nodes = [
        node("MatMul", [names[4] if index else "x", name], names[4] if not index else names[5]) for index, name in enumerate(names[:2])
    ]
    model = model_of(nodes, {"x": ["n", 3]}, {names[5]: ["n", 3]}, {names[0]: values(3, 3), names[1]: values(3, 3), names[2]: values(3, 3)})
    module = OnnxModule(model)
    assert sorted(dict(module.named_parameters())) == ["p0", "p1"]
    assert module.tensors().keys() == {"p0", "__class__"}
    assert module(torch.ones(2, 3)).shape == (2, 3)


def test_a_copy_is_independent() -> None:
    module = OnnxModule(linear_model())
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.tensors()["w2"].zero_()
    x = torch.randn(2, 4)
    assert not torch.allclose(twin(x), module(x))
    torch.testing.assert_close(twin(x), torch.full((2, 3), 1 / 3))


def test_half_precision_is_computed_in_float32() -> None:
    nodes = [node("MatMul", ["x", "w"], "y")]
    types = {"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT16}
    module = OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 2]}, {"w": values(4, 2).astype(np.float16)}, types=types))
    assert module.inputs[0].dtype == torch.float16
    assert module.tensors()["w"].dtype == torch.float32
    assert module(torch.ones(3, 4, dtype=torch.float16)).dtype == torch.float32


def test_dropout_drops_only_where_the_file_and_the_module_train() -> None:
    def module_with(training_mode: bool) -> OnnxModule:
        nodes = [node("MatMul", ["x", "w"], "a"), node("Dropout", ["a", "ratio", "mode"], "y")]
        arrays = {"w": np.eye(4, dtype=np.float32), "ratio": np.array(0.5, np.float32), "mode": np.array(training_mode)}
        return OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, arrays))

    torch.manual_seed(0)
    x = torch.ones(500, 4)
    assert torch.equal(module_with(False).train()(x), x)
    assert torch.equal(module_with(True).eval()(x), x)
    dropped = module_with(True).train()(x)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert abs(dropped.mean().item() - 1) < 0.1


@pytest.mark.parametrize("exporter", ["legacy-static", "dynamo-static"])
def test_a_batch_size_of_one_that_is_built_in_takes_any_batch(exporter: str) -> None:
    module = OnnxModule(parse_model(exported("lenet", exporter))).eval()
    assert module.static_batch == 1
    x = torch.randn(7, *network("lenet").shape)
    expected = network("lenet")(x)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x[:1]), expected[:1])

    # The noise differs from row to row, and everything learns.
    torch.manual_seed(0)
    same = x[:1].expand(4, *x.shape[1:])
    noisy = module(
        same,
        values={
            name: GaussianValue(module.tensors()[name], torch.tensor(0.1).expand_as(module.tensors()[name])) for name in module.weight_names
        },
    )
    assert not torch.allclose(noisy[0], noisy[1])
    noisy.square().sum().backward()
    assert all(tensor.grad is not None for tensor in module.tensors().values())


def test_a_batch_size_that_is_only_declared_costs_nothing() -> None:
    module = OnnxModule(linear_model(rows=8))
    assert module.static_batch == 8
    assert module(torch.randn(3, 4)).shape == (3, 3)


def test_another_batch_size_that_is_built_in_takes_any_batch() -> None:
    data = export(network("lenet"), torch.randn(4, *network("lenet").shape), dynamo=False)
    module = OnnxModule(parse_model(data)).eval()
    assert (module.static_batch, module.built_in_batch) == (4, 4)
    x = torch.randn(10, *network("lenet").shape)
    for rows in (1, 4, 10):
        torch.testing.assert_close(module(x[:rows]), network("lenet")(x[:rows]))
    same, weights = x[:1].expand(8, *x.shape[1:]), {name: module.tensors()[name] for name in module.weight_names}
    noisy = module(same, values={name: GaussianValue(tensor, torch.full_like(tensor, 0.1)) for name, tensor in weights.items()})
    assert len(noisy.unique(dim=0)) == 8


def test_a_batch_of_which_no_other_can_be_made_is_refused_with_the_remedy() -> None:
    nodes = [node("MatMul", ["x", "w"], "scores"), node("ReduceSum", ["scores"], "y", keepdims=1)]
    with pytest.raises(UnsupportedModel, match="batch size 4") as caught:
        OnnxModule(model_of(nodes, {"x": [4, 5]}, {"y": [1, 1]}, {"w": values(5, 3)}))
    assert caught.value.suggestion is not None
    assert "dynamic batch size" in caught.value.suggestion


def test_inputs_must_agree_on_the_batch() -> None:
    nodes = [node("MatMul", ["x", "w"], "a"), node("Add", ["a", "z"], "y")]
    with pytest.raises(UnsupportedModel, match="different batch sizes"):
        OnnxModule(model_of(nodes, {"x": [2, 4], "z": [1, 3]}, {"y": [2, 3]}, {"w": values(4, 3)}))


def test_a_model_without_input_is_refused() -> None:
    nodes = [node("MatMul", ["v", "w"], "y")]
    with pytest.raises(UnsupportedModel, match="no input"):
        OnnxModule(model_of(nodes, {}, {"y": [2, 3]}, {"v": values(2, 4), "w": values(4, 3)}))


def test_several_inputs_are_taken_in_the_order_of_the_file() -> None:
    nodes = [node("MatMul", ["x", "w"], "a"), node("Add", ["a", "z"], "y")]
    module = OnnxModule(model_of(nodes, {"z": ["n", 3], "x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)}))
    assert [spec.name for spec in module.inputs] == ["z", "x"]
    z, x = torch.randn(2, 3), torch.randn(2, 4)
    torch.testing.assert_close(module(z, x), x @ module.tensors()["w"] + z)


def test_building_a_module_leaves_the_random_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.randn(1)
    torch.manual_seed(0)
    OnnxModule(linear_model())
    assert torch.equal(torch.randn(1), expected)


def test_batch_normalisation_of_a_training_export_trains_as_in_torch_and_goes_back_to_inference() -> None:
    reference = copy.deepcopy(network("resnet")).train()
    module = OnnxModule(parse_model(exported("resnet", "legacy-training")))
    assert len(module.state()) == len(module.tensors()) + 6
    frozen = OnnxModule(parse_model(exported("resnet", "dynamo-unoptimised")))
    assert frozen.state().keys() == frozen.tensors().keys()

    x = torch.randn(6, *network("resnet").shape, generator=torch.Generator().manual_seed(1))
    before = {name: tensor.detach().clone() for name, tensor in module.state().items()}
    reference.load_state_dict(before, strict=False)  # the export itself has run the network, and moved its statistics
    torch.testing.assert_close(module.train()(x), reference(x), rtol=1e-4, atol=1e-5)
    changed = {name for name, tensor in module.state().items() if not torch.equal(tensor, before[name])}
    assert changed == module.state().keys() - module.tensors().keys()
    expected = dict(reference.named_buffers())
    for name in changed:
        torch.testing.assert_close(module.state()[name], expected[name], rtol=1e-4, atol=1e-5)

    written = write_arrays(parse_model(exported("resnet", "legacy-training")), {k: v.detach().numpy() for k, v in module.state().items()})
    session = onnxruntime.InferenceSession(written.SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(got, reference.eval()(x).numpy(), rtol=1e-4, atol=1e-5)


def weight_normalised(rows: np.ndarray) -> ModelProto:
    """y = relu(x w) @ (g v / |v|), as PyTorch's weight norm is written where the exporter does not optimise."""
    nodes = [
        node("MatMul", ["x", "w"], "a"),
        node("ReduceL2", ["v"], "size", axes=[1]),
        node("Div", ["v", "size"], "unit"),
        node("Mul", ["unit", "g"], "normed"),
        node("Gemm", ["a", "normed"], "y", transB=1),
    ]
    arrays = {"w": values(4, 5), "v": rows, "g": values(3, 1, seed=1)}
    return model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, arrays)


def test_a_weight_that_is_divided_by_its_own_norm_is_trained_but_not_pruned() -> None:
    module = OnnxModule(weight_normalised(values(3, 5, seed=2)))
    assert module.weight_names == ("w",)
    assert module.treatments.keys() == {"w"}
    assert module.tensors().keys() == {"w", "v", "g"}
    assert "divided" in module.uncovered["v"]


def test_a_model_of_nothing_else_has_no_weights() -> None:
    model = weight_normalised(values(3, 5, seed=2))
    model.graph.node[-1].input[0] = "x"
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values(3, 4), "v"))
    with pytest.raises(NoWeights, match="divided"):
        OnnxModule(model)
