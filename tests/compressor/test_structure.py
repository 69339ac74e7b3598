"""Dead units taken out of a graph: ONNX Runtime gives the same outputs for the arrays, the folded arrays and the smaller graph."""

import math
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper

from compressor.artifacts import runtime
from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors, to_inference, write_arrays
from compressor.structure import Compaction, compact
from tests.benchmarks.dense import lenet_5, lenet_300_100
from tests.benchmarks.networks import Transformer, resnet_18
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.graph.networks import NETWORKS, export, exported, network

Arrays = dict[str, np.ndarray]


def check(model: ModelProto, arrays: Mapping[str, np.ndarray], rows: np.ndarray, *, drop_dead_inputs: bool = False) -> Compaction:
    """Compacts, and asserts all that must hold of it."""
    before = model.SerializeToString(deterministic=True)
    given_arrays = {name: array.copy() for name, array in arrays.items()}
    found = compact(model, arrays, drop_dead_inputs=drop_dead_inputs)
    assert model.SerializeToString(deterministic=True) == before
    assert all(np.array_equal(arrays[name], given_arrays[name]) for name in arrays)
    small = parse_model(found.model.SerializeToString())
    onnx.checker.check_model(small, full_check=True)
    expected = _outputs(write_arrays(model, arrays), rows)
    scale = max(1e-6, *(float(np.abs(each).max()) for each in expected))
    for other in (write_arrays(model, found.folded), to_inference(small)):
        for ours, theirs in zip(_outputs(other, rows), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5 * scale)
    tensors = float_tensors(small)
    shrunk = found.shrink(found.folded)
    assert all(np.array_equal(tensors[name], shrunk[name]) for name in tensors)
    _check_expansion(model, found, small, rows)
    return found


def _check_expansion(model: ModelProto, found: Compaction, small: ModelProto, rows: np.ndarray) -> None:
    """Whatever the tensors of the smaller graph become, those of the original shapes give its outputs."""
    rng = np.random.default_rng(7)
    trained = {
        name: (array * rng.uniform(0.5, 1.5, array.shape)).astype(array.dtype)
        if any(axis is not None for axis in found.kept[name])
        else array
        for name, array in float_tensors(small).items()
    }
    expanded = found.expand(trained)
    assert {name: array.shape for name, array in expanded.items()} == {name: found.folded[name].shape for name in expanded}
    assert all(np.array_equal(array, trained[name]) for name, array in found.shrink(expanded).items())
    tensors = found.expand({name: torch.tensor(array) for name, array in trained.items()})
    assert all(np.array_equal(tensor.numpy(), expanded[name]) for name, tensor in tensors.items())
    for ours, theirs in zip(_outputs(write_arrays(model, expanded), rows), _outputs(write_arrays(small, trained), rows), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1e-6, float(np.abs(theirs).max())))


def _outputs(model: ModelProto, rows: np.ndarray) -> list[np.ndarray]:
    data = model.SerializeToString()
    return [runtime.run(data, [rows], output=info.name) for info in model.graph.output]


def pruned(arrays: Mapping[str, np.ndarray], seed: int = 0, *, dead: float = 0.4, kept: float = 0.5) -> Arrays:
    """Of every weight, units of both sides and single elements zeroed at random."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, array in arrays.items():
        made[name] = array.copy()
        if array.ndim >= 2:
            for axis in (0, 1):
                np.moveaxis(made[name], axis, 0)[rng.random(array.shape[axis]) < dead / 2] = 0
            made[name] *= rng.random(array.shape) < kept
    return made


def sizes(found: Compaction) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in float_tensors(found.model).items()}


def two_layers(hidden: int = 4, activation: str = "Relu") -> ModelProto:
    nodes = [node("Gemm", ["x", "w1", "b1"], "a"), node(activation, ["a"], "h"), node("Gemm", ["h", "w2", "b2"], "y", transB=1)]
    arrays = {"w1": values(3, hidden), "b1": values(hidden, seed=1), "w2": values(2, hidden, seed=2), "b2": values(2, seed=3)}
    return model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 2]}, arrays)


ROWS = values(5, 3, seed=9)


def test_a_neuron_that_nobody_reads_goes() -> None:
    model = two_layers()
    arrays = float_tensors(model) | {"w2": values(2, 4, seed=2) * [1, 0, 1, 1]}
    found = check(model, arrays, ROWS)
    assert sizes(found) == {"w1": (3, 3), "b1": (3,), "w2": (2, 3), "b2": (2,)}
    assert [None if axis is None else axis.tolist() for axis in found.kept["w1"]] == [None, [0, 2, 3]]
    assert not found.folded["w1"][:, 1].any()
    assert not found.folded["b1"][1]


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Softplus", "HardSigmoid"])
def test_a_neuron_without_inputs_goes_into_the_next_bias(activation: str) -> None:
    model = two_layers(activation=activation)
    arrays = float_tensors(model)
    arrays["w1"] = arrays["w1"] * np.float32([0, 1, 0, 1])
    arrays["b1"] = np.float32([0.7, 1, -0.7, 1])
    found = check(model, arrays, ROWS)
    assert sizes(found) == {"w1": (3, 2), "b1": (2,), "w2": (2, 2), "b2": (2,)}
    assert not np.allclose(found.folded["b2"], arrays["b2"])


def test_deaths_spread_forward_and_backward_and_one_unit_stays() -> None:
    nodes = [
        *(node("Gemm", ["x", "w1", "b1"], "a"), node("Relu", ["a"], "h")),
        *(node("MatMul", ["h", "w2"], "b"), node("Add", ["b", "b2"], "c"), node("Tanh", ["c"], "i")),
        node("Gemm", ["i", "w3", "b3"], "y", alpha=0.5, beta=2.0),
    ]
    arrays = {"w1": values(3, 4), "b1": values(4), "w2": values(4, 5), "b2": values(5), "w3": values(5, 2), "b3": values(2)}
    model = model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 2]}, arrays)
    everything = sizes(check(model, arrays, ROWS))
    assert everything == {name: array.shape for name, array in arrays.items()}
    forward = check(model, arrays | {"w1": values(3, 4) * 0}, ROWS)
    assert sizes(forward) == {"w1": (3, 1), "b1": (1,), "w2": (1, 1), "b2": (1,), "w3": (1, 2), "b3": (2,)}
    backward = check(model, arrays | {"w3": values(5, 2) * 0}, ROWS)
    assert sizes(backward) == sizes(forward)
    assert np.array_equal(backward.folded["b3"], arrays["b3"])


def test_what_has_no_bias_keeps_a_constant_but_0() -> None:
    nodes = [node("Gemm", ["x", "w1", "b1"], "a"), node("Relu", ["a"], "h"), node("MatMul", ["h", "w2"], "y")]
    arrays = {"w1": values(3, 4) * [0, 0, 1, 1], "b1": np.array([1, -1, 1, 1], np.float32), "w2": values(4, 2)}
    arrays["w1"] = arrays["w1"].astype(np.float32)
    found = check(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 2]}, arrays), arrays, ROWS)
    assert sizes(found) == {"w1": (3, 3), "b1": (3,), "w2": (3, 2)}


@pytest.mark.parametrize(("pads", "left"), [([0, 0, 0, 0], 2), ([1, 1, 1, 1], 3)])
def test_a_constant_channel_is_not_folded_through_padding(pads: list[int], left: int) -> None:
    """Three filters: one alive, one that gives 0, one that gives a constant; and one that nobody reads."""
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Relu", ["a"], "h"), node("MaxPool", ["h"], "p", kernel_shape=[2, 2])),
        *(node("Conv", ["p", "w2", "b2"], "y", pads=pads),),
    ]
    arrays = {"w1": values(5, 2, 3, 3), "b1": np.float32([1, -1, 1, 1, 1]), "w2": values(3, 5, 3, 3, seed=1), "b2": values(3)}
    arrays["w1"][[1, 2]] = 0
    arrays["w2"][:, 3] = 0
    model = model_of(nodes, {"x": ["n", 2, 9, 9]}, {"y": ["n", 3, None, None]}, arrays)
    found = check(model, arrays, values(4, 2, 9, 9, seed=5))
    assert sizes(found) == {"w1": (left, 2, 3, 3), "b1": (left,), "w2": (3, left, 3, 3), "b2": (3,)}


@pytest.mark.parametrize("attributes", [{"pads": [1, 1, 1, 1]}, {"pads": [1, 1, 1, 1], "count_include_pad": 1}, {}])
def test_an_average_over_padding_is_no_constant(attributes: dict[str, object]) -> None:
    nodes = [
        node("Conv", ["x", "w1", "b1"], "a"),
        node("AveragePool", ["a"], "p", kernel_shape=[3, 3], **attributes),
        node("Conv", ["p", "w2", "b2"], "y"),
    ]
    arrays = {"w1": values(3, 1, 2, 2), "b1": np.float32([1, 1, 1]), "w2": values(2, 3, 2, 2), "b2": values(2)}
    arrays["w1"][0] = 0
    found = check(model_of(nodes, {"x": ["n", 1, 9, 9]}, {"y": ["n", 2, None, None]}, arrays), arrays, values(4, 1, 9, 9))
    assert len(sizes(found)["b1"]) == 1
    assert sizes(found)["b1"][0] == (3 if "count_include_pad" in attributes else 2)


def test_a_normalisation_without_scale_is_a_constant_that_its_successors_take() -> None:
    def norm(name: str) -> Arrays:
        return {f"{name}{part}": np.abs(values(4, seed=seed)) for seed, part in enumerate("smvb")}

    nodes = [
        *(node("Conv", ["x", "w1"], "a"), node("BatchNormalization", ["a", "1s", "1b", "1m", "1v"], "n"), node("Relu", ["n"], "h")),
        *(node("Conv", ["h", "w2"], "c"), node("BatchNormalization", ["c", "2s", "2b", "2m", "2v"], "y")),
    ]
    arrays = {"w1": values(4, 1, 3, 3), "w2": values(4, 4, 3, 3), **norm("1"), **norm("2")}
    arrays["1s"][[0, 2]] = 0
    found = check(model_of(nodes, {"x": ["n", 1, 8, 8]}, {"y": ["n", 4, None, None]}, arrays), arrays, values(4, 1, 8, 8))
    assert sizes(found)["w1"] == (2, 1, 3, 3)
    assert sizes(found)["w2"] == (4, 2, 3, 3)
    assert sizes(found)["1v"] == (2,)


def residual(w1: np.ndarray, w2: np.ndarray, w3: np.ndarray) -> tuple[ModelProto, Arrays]:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Conv", ["a", "w2"], "b", pads=[1, 1, 1, 1])),
        *(node("Add", ["a", "b"], "s"), node("GlobalAveragePool", ["s"], "p"), node("Flatten", ["p"], "f")),
        node("Gemm", ["f", "w3", "b3"], "y"),
    ]
    arrays = {"w1": w1, "b1": values(4), "w2": w2, "w3": w3, "b3": values(2)}
    return model_of(nodes, {"x": ["n", 1, 6, 6]}, {"y": ["n", 2]}, arrays), arrays


def test_a_residual_channel_goes_where_it_is_dead_in_every_branch() -> None:
    rows = values(4, 1, 6, 6)
    w1, w2, w3 = values(4, 1, 3, 3), values(4, 4, 3, 3), values(4, 2)
    w3[1] = 0  # still read by the branch
    assert sizes(check(*residual(w1, w2, w3), rows))["w1"] == (4, 1, 3, 3)
    w2[:, 1] = 0
    found = check(*residual(w1, w2, w3), rows)
    assert sizes(found) == {"w1": (3, 1, 3, 3), "b1": (3,), "w2": (3, 3, 3, 3), "w3": (3, 2), "b3": (2,)}


def test_concat_and_flatten_know_whose_columns_are_whose() -> None:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Conv", ["x", "w2", "b2"], "b"), node("Concat", ["a", "x", "b"], "c", axis=1)),
        *(node("Reshape", ["c", "shape"], "f"), node("Gemm", ["f", "w3", "b3"], "y")),
    ]
    arrays = {"w1": values(3, 2, 1, 1), "b1": values(3), "w2": values(4, 2, 1, 1), "b2": values(4), "w3": values(9 * 6, 2), "b3": values(2)}
    arrays["w3"].reshape(9, 6, 2)[[1, 3, 5, 8]] = 0  # of a, of x, and two of b
    model = model_of(nodes, {"x": ["n", 2, 2, 3]}, {"y": ["n", 2]}, arrays | {"shape": np.array([0, -1])})
    found = check(model, arrays, values(4, 2, 2, 3))
    assert sizes(found) == {"w1": (2, 2, 1, 1), "b1": (2,), "w2": (2, 2, 1, 1), "b2": (2,), "w3": (36, 2), "b3": (2,)}


def test_transposes_move_the_axis_of_values_and_weights() -> None:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Transpose", ["a"], "t", perm=[0, 2, 3, 1]), node("Mul", ["t", "scale"], "m")),
        *(node("Transpose", ["w2"], "turned"), node("MatMul", ["m", "turned"], "b"), node("Add", ["b2", "b"], "c")),
        *(node("Reshape", ["c", "shape"], "f"), node("Gemm", ["f", "w3", "b3"], "y")),
    ]
    arrays = {"w1": values(4, 1, 1, 1), "b1": values(4), "scale": values(4), "w2": values(3, 4), "b2": values(3)}
    arrays |= {"w3": values(6 * 3, 2), "b3": values(2)}
    arrays["w2"][:, 2] = 0
    arrays["scale"][3] = 0
    arrays["w3"].reshape(6, 3, 2)[:, 1] = 0
    model = model_of(nodes, {"x": ["n", 1, 2, 3]}, {"y": ["n", 2]}, arrays | {"shape": np.array([-1, 18])})
    found = check(model, arrays, values(4, 1, 2, 3))
    # The flattened positions have the units in turn, not in blocks.
    expected = {"w1": (2, 1, 1, 1), "b1": (2,), "scale": (2,), "w2": (2, 2), "b2": (2,), "w3": (6 * 2, 2), "b3": (2,)}
    assert sizes(found) == expected


def test_a_channel_of_a_depthwise_convolution_goes_with_its_filter() -> None:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Relu", ["a"], "h"), node("Conv", ["h", "d", "e"], "b", group=4, pads=[1] * 4)),
        *(node("Relu", ["b"], "i"), node("Conv", ["i", "w2", "b2"], "y")),
    ]
    arrays = {"w1": values(4, 1, 1, 1), "b1": values(4), "d": values(4, 1, 3, 3), "e": np.float32([1, 1, 1, 1]), "w2": values(2, 4, 1, 1)}
    arrays["b2"] = values(2)
    arrays["d"][0] = 0  # a constant 1, whatever comes in
    arrays["w2"][:, 2] = 0
    found = check(model_of(nodes, {"x": ["n", 1, 5, 5]}, {"y": ["n", 2, 5, 5]}, arrays), arrays, values(4, 1, 5, 5))
    assert sizes(found) == {"w1": (2, 1, 1, 1), "b1": (2,), "d": (2, 1, 3, 3), "e": (2,), "w2": (2, 2, 1, 1), "b2": (2,)}


PINNED = {
    "softmax": [node("Softmax", ["a"], "h", axis=1)],
    "weights by channel below a division": [node("Div", ["a", "own"], "h")],
    "a cumulative sum": [node("CumSum", ["a", "one"], "h")],
    "a weight read twice": [node("MatMul", ["a", "square"], "m"), node("MatMul", ["m", "square"], "h")],
}


@pytest.mark.parametrize("nodes", PINNED.values(), ids=PINNED)
def test_what_is_not_proven_keeps_its_units(nodes: list[NodeProto]) -> None:
    first, last = node("Gemm", ["x", "w1", "b1"], "a"), node("Gemm", ["h", "w2", "b2"], "y")
    arrays = {
        "w1": values(3, 4),
        "b1": values(4),
        "w2": values(4, 2),
        "b2": values(2),
        "own": np.abs(values(4)) + 1,
        "square": values(4, 4),
    }
    arrays["w1"][:, 0] = 0
    arrays["w2"][:2] = 0
    model = model_of([first, *nodes, last], {"x": ["n", 3]}, {"y": ["n", 2]}, arrays | {"one": np.array(1)})
    assert sizes(check(model, arrays, ROWS))["w1"] == (3, 4)


def test_another_output_pins_and_a_chosen_one_is_alone() -> None:
    model = two_layers()
    model.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 4]))
    arrays = float_tensors(model) | {"w2": values(2, 4, seed=2) * np.float32([1, 0, 1, 1])}
    assert sizes(check(model, arrays, ROWS))["w1"] == (3, 4)
    found = compact(model, arrays, output="y")
    assert sizes(found)["w1"] == (3, 3)
    assert [info.name for info in found.model.graph.output] == ["y"]


def test_dead_features_of_the_input_are_not_gathered() -> None:
    model = lenet_300_100_model()
    arrays = float_tensors(model)
    dead = np.random.default_rng(0).permutation(784)[:354]
    arrays["2.weight"] = arrays["2.weight"].copy()
    arrays["2.weight"][:, dead] = 0
    rows = values(4, 1, 28, 28)
    assert sizes(check(model, arrays, rows))["2.weight"] == (300, 784)
    found = check(model, arrays, rows, drop_dead_inputs=True)
    assert sizes(found)["2.weight"] == (300, 430)
    module = OnnxModule(found.model)
    assert module.inputs[0].shape == (None, 1, 28, 28)
    np.testing.assert_allclose(module(torch.from_numpy(rows)).detach().numpy(), _outputs(found.model, rows)[0], atol=1e-5)


def exported_network(net: torch.nn.Module, rows: torch.Tensor) -> ModelProto:
    return parse_model(export(net.eval(), rows, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},)))


def lenet_300_100_model() -> ModelProto:
    return exported_network(lenet_300_100(), torch.zeros(2, 1, 28, 28))


def test_lenet_5_of_the_benchmark() -> None:
    model = exported_network(lenet_5(), torch.zeros(2, 1, 28, 28))
    arrays = float_tensors(model)
    rng = np.random.default_rng(0)
    for name, dead in (("0.weight", 13), ("3.weight", 30), ("8.weight", 450)):
        arrays[name] = arrays[name].copy()
        arrays[name][rng.permutation(len(arrays[name]))[:dead]] = 0
    found = check(model, arrays, values(4, 1, 28, 28))
    assert sizes(found) == {
        **{"0.weight": (7, 1, 5, 5), "0.bias": (7,), "3.weight": (20, 7, 5, 5), "3.bias": (20,)},
        **{"8.weight": (50, 320), "8.bias": (50,), "11.weight": (10, 50), "11.bias": (10,)},
    }


def test_resnet_18_of_the_benchmark() -> None:
    torch.manual_seed(0)
    model = exported_network(resnet_18(10), torch.zeros(2, 3, 32, 32))
    arrays = pruned(float_tensors(model), dead=0.8)
    found = check(model, arrays, values(2, 3, 32, 32))
    assert sum(math.prod(shape) for shape in sizes(found).values()) < 0.8 * sum(array.size for array in arrays.values())


def test_hidden_units_of_a_transformer_go() -> None:
    torch.manual_seed(0)
    net = Transformer()
    for parameter in net.parameters():  # layers begin as copies of each other, and the exporter stores equal tensors once
        torch.nn.init.normal_(parameter, std=0.05)
    model = exported_network(net, torch.zeros(2, 64, dtype=torch.long))
    arrays = float_tensors(model)
    inner = next(name for name, array in arrays.items() if array.shape == (512, 128))
    arrays[inner] = arrays[inner].copy()
    arrays[inner][100:] = 0
    found = check(model, arrays, np.random.default_rng(0).integers(0, 5000, (2, 64)))
    assert sizes(found)[inner] == (100, 128)
    assert sum(array.size for array in arrays.values()) - sum(map(math.prod, sizes(found).values())) == 412 * (128 + 128 + 1)


def test_a_file_that_lists_its_initialisers_among_the_inputs() -> None:
    model = two_layers()
    arrays = float_tensors(model) | {"w2": values(2, 4, seed=2) * np.float32([1, 0, 1, 1])}
    model.ir_version = 3
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in arrays.items())
    assert sizes(check(model, arrays, ROWS))["w1"] == (3, 3)


def test_normalisation_along_another_axis_takes_no_constants() -> None:
    """The product has as many units on its last axis as the normalisation has channels on its second."""
    nodes = [
        *(node("MatMul", ["x", "w1"], "a"), node("Add", ["a", "b1"], "h"), node("MatMul", ["h", "w2"], "m")),
        node("BatchNormalization", ["m", "s", "b", "mean", "var"], "y"),
    ]
    arrays = {"w1": values(3, 4) * np.float32([0, 1, 1, 1]), "b1": values(4), "w2": values(4, 5)}
    arrays |= {name: np.abs(values(5, seed=seed)) for seed, name in enumerate(("s", "b", "mean", "var"))}
    model = model_of(nodes, {"x": ["n", 5, 3]}, {"y": ["n", 5, 5]}, arrays)
    assert sizes(check(model, arrays, values(4, 5, 3)))["w1"] == (3, 4)


def test_a_graph_of_nothing_that_is_understood_stays() -> None:
    arrays = {"w": values(3, 3)}
    model = model_of([node("Einsum", ["x", "w"], "y", equation="ij,jk->ik")], {"x": ["n", 3]}, {"y": ["n", 3]}, arrays)
    assert sizes(check(model, arrays, ROWS)) == {"w": (3, 3)}


SHRINKING = {"mlp", "lenet", "vgg", "resnet", "mobilenet"}


@pytest.mark.parametrize("exporter", ["dynamo", "dynamo-unoptimised", "dynamo-static", "legacy-11", "legacy-17", "legacy-static"])
@pytest.mark.parametrize("name", sorted(SHRINKING))
def test_usual_networks_of_every_exporter_shrink(name: str, exporter: str) -> None:
    model = parse_model(exported(name, exporter))
    arrays = pruned(float_tensors(model), dead=0.6)
    rows = network(name).rows(1 if exporter.endswith("static") else 5).numpy()
    found = check(model, arrays, rows)
    if exporter != "dynamo-unoptimised":  # where biases are results of Expand, and bounds of CastLike
        assert sum(map(math.prod, sizes(found).values())) < 0.8 * sum(array.size for array in arrays.values())


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - SHRINKING))
def test_other_networks_give_what_they_gave(name: str) -> None:
    model = parse_model(exported(name, "dynamo"))
    found = check(model, pruned(float_tensors(model), dead=0.6), network(name).rows(3).numpy())
    assert sizes(found).keys() <= float_tensors(model).keys()


def test_batch_normalisation_in_training_stays_so_and_pins() -> None:
    model = parse_model(exported("resnet", "legacy-training"))
    found = compact(model, pruned(float_tensors(model)))
    assert any(attribute.name == "training_mode" for each in found.model.graph.node for attribute in each.attribute)
    assert OnnxModule(found.model).weight_names


_HYPOTHESIS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_SHARES = st.sampled_from([0.0, 0.3, 0.7, 1.0])


@_HYPOTHESIS
@given(seed=st.integers(0, 2**16), dead=_SHARES, kept=_SHARES, drop=st.booleans())
def test_any_masks_of_an_mlp(seed: int, dead: float, kept: float, drop: bool) -> None:
    model = parse_model(exported("mlp", "dynamo-unoptimised"))
    check(model, pruned(float_tensors(model), seed, dead=dead, kept=kept), network("mlp").rows(3).numpy(), drop_dead_inputs=drop)


@_HYPOTHESIS
@given(seed=st.integers(0, 2**16), dead=_SHARES, kept=_SHARES, name=st.sampled_from(["lenet", "vgg", "mobilenet"]))
def test_any_masks_of_a_convolutional_network(seed: int, dead: float, kept: float, name: str) -> None:
    model = parse_model(exported(name, "dynamo"))
    check(model, pruned(float_tensors(model), seed, dead=dead, kept=kept), network(name).rows(3).numpy())


def test_masks_expand_to_masks() -> None:
    model = two_layers()
    found = compact(model, float_tensors(model) | {"w2": values(2, 4, seed=2) * np.float32([1, 0, 1, 1])})
    mask = torch.ones(3, 3, dtype=torch.bool)
    assert found.expand({"w1": mask, "other": mask})["w1"].tolist() == [[True, False, True, True]] * 3
    assert found.expand({"other": mask})["other"] is mask
