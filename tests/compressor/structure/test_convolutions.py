"""Filters and channels: padding, pooling, normalisation, residual sums, groups."""

import numpy as np
import pytest
from onnx import ModelProto

from tests.compressor.graph.models import model_of, node, values
from tests.compressor.structure.checks import Arrays, check, sizes


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
