"""Columns of embedding tables."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from tests.compressor.graph.models import model_of, node, values
from tests.compressor.structure.checks import Arrays, check, sizes

TOKENS, WIDTH = 60, 6
IDS = np.random.default_rng(0).integers(-TOKENS, TOKENS, (8, 5))
HEAD = [node("ReduceMean", ["h"], "mean", axes=[1], keepdims=0), node("Gemm", ["mean", "w", "b"], "y")]


def words(*nodes: NodeProto, tokens: int = TOKENS) -> tuple[ModelProto, Arrays]:
    """Bags of words, [batch, 5] ids: `nodes` make h of the rows e of a table."""
    arrays = {"table": values(tokens, WIDTH), "w": values(WIDTH, 3, seed=1), "b": values(3, seed=2)}
    if any("positions" in each.input for each in nodes):
        arrays["positions"] = values(5, WIDTH, seed=3)
    gathered = node("Gather", ["table", "x"], "e")
    return model_of([gathered, *nodes, *HEAD], {"x": ["n", 5]}, {"y": ["n", 3]}, arrays, types={"x": TensorProto.INT64}), arrays


def test_columns_that_nobody_reads_go() -> None:
    model, arrays = words(node("Relu", ["e"], "h"))
    arrays["w"][[1, 4]] = 0
    assert sizes(check(model, arrays, IDS)) == {"table": (TOKENS, 4), "w": (4, 3), "b": (3,)}


def test_columns_go_with_those_that_are_added_to_them() -> None:
    model, arrays = words(node("Add", ["e", "positions"], "h"))
    arrays["w"][[1, 4]] = 0
    assert sizes(check(model, arrays, IDS)) == {"table": (TOKENS, 4), "positions": (5, 4), "w": (4, 3), "b": (3,)}


def test_a_column_of_one_number_is_a_constant() -> None:
    model, arrays = words(node("Relu", ["e"], "h"))
    arrays["table"][:, [0, 3]] = [0, 2]
    arrays["table"][1:, 5] = 0
    found = check(model, arrays, IDS)
    assert found.kept["table"][1].tolist() == [1, 2, 4, 5]
    np.testing.assert_allclose(found.folded["b"], arrays["b"] + 2 * arrays["w"][3], rtol=1e-6)


def test_a_norm_over_the_columns_keeps_them() -> None:
    model, arrays = words(node("LayerNormalization", ["e", "b6"], "h"))
    model.graph.initializer.append(helper.make_tensor("b6", TensorProto.FLOAT, [WIDTH], np.ones(WIDTH)))
    arrays["w"][[1, 4]] = 0
    arrays["table"][:, 1] = 0
    assert sizes(check(model, arrays, IDS))["table"] == (TOKENS, WIDTH)


def test_a_table_that_is_a_weight_elsewhere_keeps_its_columns() -> None:
    nodes = [node("Gather", ["table", "x"], "e"), node("Relu", ["e"], "h"), node("MatMul", ["h", "turned"], "y")]
    arrays = {"table": values(TOKENS, WIDTH)}
    arrays["table"][:, 2] = 0
    turn = node("Transpose", ["table"], "turned")
    model = model_of([turn, *nodes], {"x": ["n", 5]}, {"y": ["n", 5, TOKENS]}, arrays, types={"x": TensorProto.INT64})
    assert sizes(check(model, arrays, IDS)) == {"table": (TOKENS, WIDTH)}


def test_a_table_of_0_is_a_constant() -> None:
    model, arrays = words(node("Sigmoid", ["e"], "h"))
    arrays["table"][:] = 0
    found = check(model, arrays, IDS)
    assert sizes(found)["w"] == (1, 3)
    np.testing.assert_allclose(found.folded["b"], arrays["b"] + arrays["w"].sum(0) / 2, rtol=1e-6)
