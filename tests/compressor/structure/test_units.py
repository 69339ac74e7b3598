"""Dead units taken out of a graph: ONNX Runtime gives the same outputs for the arrays, the folded arrays and the smaller graph."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper

from compressor.graph.write import float_tensors
from compressor.structure import compact
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.structure.checks import check, sizes


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


def test_a_neuron_goes_only_where_all_its_readers_are_done_with_it() -> None:
    nodes = [
        *(node("Gemm", ["x", "w1", "b1"], "h"), node("Gemm", ["h", "w2", "b2"], "a"), node("Gemm", ["h", "w3", "b3"], "b")),
        node("Mul", ["a", "b"], "y"),
    ]
    arrays = {"w1": values(3, 4), "b1": values(4), **{f"w{place}": values(4, 2, seed=place) for place in (2, 3)}}
    arrays |= {f"b{place}": values(2, seed=place) for place in (2, 3)}
    model = model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 2]}, arrays)
    arrays["w2"][[0, 1]] = 0
    arrays["w3"][[1, 2]] = 0
    assert check(model, arrays, ROWS).kept["w1"][1].tolist() == [0, 2, 3]


def test_a_bias_that_two_layers_share_keeps_their_units_and_takes_no_constant() -> None:
    nodes = [
        *(node("Gemm", ["x", "w1", "b1"], "a"), node("Relu", ["a"], "h"), node("Gemm", ["h", "w2", "b"], "c"), node("Relu", ["c"], "i")),
        node("Gemm", ["i", "w3", "b"], "y"),
    ]
    arrays = {"w1": values(3, 4), "b1": np.float32([0, 1, 2, 3]), "w2": values(4, 3), "b": values(3), "w3": values(3, 3, seed=1)}
    arrays["w1"][:, [0, 1]] = 0
    arrays["w2"][2] = 0
    arrays["w3"][1] = 0
    found = check(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, arrays), arrays, ROWS)
    assert sizes(found) == {"w1": (3, 2), "b1": (2,), "w2": (2, 3), "b": (3,), "w3": (3, 3)}


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


def test_a_file_that_lists_its_initialisers_among_the_inputs() -> None:
    model = two_layers()
    arrays = float_tensors(model) | {"w2": values(2, 4, seed=2) * np.float32([1, 0, 1, 1])}
    model.ir_version = 3
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in arrays.items())
    assert sizes(check(model, arrays, ROWS))["w1"] == (3, 3)


def test_a_graph_of_nothing_that_is_understood_stays() -> None:
    arrays = {"w": values(3, 3)}
    model = model_of([node("Einsum", ["x", "w"], "y", equation="ij,jk->ik")], {"x": ["n", 3]}, {"y": ["n", 3]}, arrays)
    assert sizes(check(model, arrays, ROWS)) == {"w": (3, 3)}


def test_masks_expand_to_masks() -> None:
    model = two_layers()
    found = compact(model, float_tensors(model) | {"w2": values(2, 4, seed=2) * np.float32([1, 0, 1, 1])})
    mask = torch.ones(3, 3, dtype=torch.bool)
    assert found.expand({"w1": mask, "other": mask})["w1"].tolist() == [[True, False, True, True]] * 3
    assert found.expand({"other": mask})["other"] is mask


def test_a_number_that_a_cast_rounds_is_not_folded_through_it() -> None:
    nodes = [
        *(node("Gemm", ["x", "w1", "b1"], "a"), node("Cast", ["a"], "half", to=TensorProto.FLOAT16)),
        *(node("Cast", ["half"], "h", to=TensorProto.FLOAT), node("Gemm", ["h", "w2", "b2"], "y")),
    ]
    arrays = {"w1": values(3, 4) * np.float32([0, 0, 0, 1]), "b1": np.float32([0.1, 0, 1, 1]), "w2": values(4, 2) * 100, "b2": values(2)}
    arrays["w2"][3] = 0
    found = check(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 2]}, arrays), arrays, ROWS)
    assert found.kept["w1"][1].tolist() == [0, 2]


@pytest.mark.parametrize(("opset", "attributes"), [(11, {}), (12, {"split": [2, 2]}), (13, {}), (18, {"num_outputs": 2})])
def test_parts_of_every_opset_get_their_lengths(opset: int, attributes: dict[str, Any]) -> None:
    nodes = [
        *(node("Gemm", ["x", "w1", "b1"], "a"), node("Split", ["a"], ["l", "r"], axis=1, **attributes)),
        *(node("Gemm", ["l", "w2", "b2"], "y"), node("Gemm", ["r", "w3", "b3"], "z")),
    ]
    arrays = {"w1": values(3, 4), "b1": values(4), "w2": values(2, 2), "b2": values(2), "w3": values(2, 2, seed=1), "b3": values(2, seed=1)}
    arrays["w2"][1] = 0
    found = check(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 2], "z": ["n", 2]}, arrays, opset=opset), arrays, ROWS)
    assert (sizes(found)["w1"], sizes(found)["w2"], sizes(found)["w3"]) == ((3, 3), (1, 2), (2, 2))


def test_what_is_normalised_may_be_unknown_for_all_units_at_once() -> None:
    nodes = [
        *(node("Gemm", ["x", "w1", "b1"], "a"), node("Where", ["mask", "a", "zero"], "m")),
        *(node("BatchNormalization", ["m", "s", "t", "mean", "var"], "n"), node("Gemm", ["n", "w2", "b2"], "y")),
    ]
    arrays = {"w1": values(3, 4), "b1": values(4), "w2": values(4, 2), "b2": values(2), "s": values(4), "t": values(4), "mean": values(4)}
    arrays |= {"var": np.abs(values(4)) + 1}
    arrays["s"][2] = 0
    arrays["w2"][0] = 0
    given = {"mask": np.array([True]), "zero": np.float32(0)}
    found = check(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 2]}, arrays | given), arrays, ROWS)
    assert found.kept["w1"][1].tolist() == [1, 3]


def test_a_unit_of_a_sum_that_only_it_reads_itself_goes() -> None:
    nodes = [
        *(node("Gemm", ["x", "w1", "b1"], "a"), node("Gemm", ["a", "w2", "b2"], "b"), node("Add", ["a", "b"], "s")),
        node("Gemm", ["s", "w3", "b3"], "y"),
    ]
    arrays = {"w1": values(3, 4), "b1": values(4), "w2": values(4, 4), "b2": values(4, seed=1), "w3": values(4, 2), "b3": values(2)}
    arrays["w3"][1] = 0
    arrays["w2"][1, [0, 2, 3]] = 0
    found = check(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 2]}, arrays), arrays, ROWS)
    assert found.kept["w1"][1].tolist() == [0, 2, 3]


def test_deaths_go_through_a_deep_network_at_once() -> None:
    """A pass over all layers for each of them would take half a minute."""
    depth = 400
    nodes = [node("Gemm", [f"h{index}", f"w{index}", f"b{index}"], f"h{index + 1}") for index in range(depth)]
    arrays = {f"w{index}": np.eye(4, dtype=np.float32) for index in range(depth)}
    arrays |= {f"b{index}": values(4) for index in range(depth)}
    arrays[f"w{depth - 1}"][2] = 0
    found = compact(model_of(nodes, {"h0": ["n", 4]}, {f"h{depth}": ["n", 4]}, arrays), arrays)
    assert sizes(found)["w0"] == (4, 3)
    assert sum(array.size for array in float_tensors(found.model).values()) == (depth - 2) * 9 + 2 * 12 + (depth - 1) * 3 + 4
