"""Rows of zeros in embedding tables: one is left, and whatever is looked up is what it was, bit for bit."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors
from compressor.structure import merge_zero_rows
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.structure.checks import outputs_of

TOKENS, WIDTH = 60, 6
IDS = np.random.default_rng(0).integers(-TOKENS, TOKENS, (8, 5))


def words(table: np.ndarray, *nodes: NodeProto, output: Sequence[int | str] = ("n", 5, WIDTH), opset: int = 17) -> ModelProto:
    """Of [batch, 5] ids."""
    return model_of(list(nodes), {"x": ["n", 5]}, {"y": list(output)}, {"table": table}, opset, {"x": TensorProto.INT64})


def with_zero_rows(dtype: type = np.float32) -> np.ndarray:
    table = values(TOKENS, WIDTH).astype(dtype)
    table[10:50] = 0
    return table


def with_few_zero_rows() -> np.ndarray:
    table = values(TOKENS, WIDTH)
    table[:12] = 0
    return table


def check(model: ModelProto, rows: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Asserts all that must hold. Returns: the sizes of the float tensors."""
    before = model.SerializeToString(deterministic=True)
    merged = parse_model(merge_zero_rows(model).SerializeToString())
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(merged, full_check=True)
    for ours, theirs in zip(outputs_of(merged, rows), outputs_of(model, rows), strict=True):
        assert np.array_equal(ours, theirs)
    ours = OnnxModule(merged).eval()(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(ours, outputs_of(model, rows)[0], atol=1e-5)
    return {name: array.shape for name, array in float_tensors(merged).items()}


@pytest.mark.parametrize("axis", [None, 0, -2])
@pytest.mark.parametrize("opset", [11, 20])
def test_rows_of_0_become_one(axis: int | None, opset: int) -> None:
    gather = node("Gather", ["table", "x"], "y") if axis is None else node("Gather", ["table", "x"], "y", axis=axis)
    model = words(with_zero_rows(), gather, opset=opset)
    assert check(model, IDS) == {"table": (21, WIDTH)}
    assert merge_zero_rows(model).ByteSize() < model.ByteSize()


def test_every_id_finds_its_row() -> None:
    table = values(4_000, WIDTH)
    table[np.random.default_rng(1).random(len(table)) < 0.7] = 0
    model = model_of(
        [node("Gather", ["table", "x"], "y")], {"x": ["n"]}, {"y": ["n", WIDTH]}, {"table": table}, 17, {"x": TensorProto.INT64}
    )
    assert check(model, np.arange(-4_000, 4_000)) == {"table": (int(table.any(1).sum()) + 1, WIDTH)}


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_tables_of_other_types(dtype: type) -> None:
    kinds = {"x": TensorProto.INT64, "y": onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    model = model_of(
        [node("Gather", ["table", "x"], "y")], {"x": ["n", 5]}, {"y": ["n", 5, WIDTH]}, {"table": with_zero_rows(dtype)}, 17, kinds
    )
    assert check(model, IDS) == {"table": (21, WIDTH)}


def test_two_lookups_share_the_table_and_the_places() -> None:
    nodes = [
        node("Gather", ["table", "x"], "a"),
        node("Neg", ["x"], "turned"),
        node("Gather", ["table", "turned"], "b"),
        node("Add", ["a", "b"], "y"),
    ]
    model = words(with_zero_rows(), *nodes)
    assert check(model, np.abs(IDS) % TOKENS) == {"table": (21, WIDTH)}
    assert [each.op_type for each in merge_zero_rows(model).graph.node].count("Constant") == 1


def test_a_table_that_is_an_input_or_a_constant_node_too() -> None:
    model = words(with_zero_rows(), node("Gather", ["table", "x"], "y"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("table", TensorProto.FLOAT, [TOKENS, WIDTH]))
    assert merge_zero_rows(model).graph.input[1].type.tensor_type.shape.dim[0].dim_value == 21
    model = words(with_zero_rows(), node("Gather", ["table", "x"], "y"))
    constant = onnx.helper.make_node("Constant", [], ["table"], value=numpy_helper.from_array(with_zero_rows()))
    del model.graph.initializer[:]
    model.graph.node.insert(0, constant)
    assert check(model, IDS) == {"table": (21, WIDTH)}


STAYS: dict[str, tuple[np.ndarray, list[NodeProto], list[int | str]]] = {
    "too few": (
        np.where(np.arange(TOKENS)[:, None] < 12, np.float32(0), values(TOKENS, WIDTH)),
        [node("Gather", ["table", "x"], "y")],
        ["n", 5, WIDTH],
    ),
    "none": (values(TOKENS, WIDTH), [node("Gather", ["table", "x"], "y")], ["n", 5, WIDTH]),
    "a weight elsewhere": (
        with_zero_rows(),
        [node("Gather", ["table", "x"], "e"), node("Transpose", ["table"], "turned"), node("MatMul", ["e", "turned"], "y")],
        ["n", 5, TOKENS],
    ),
    "of columns": (
        np.ascontiguousarray(np.tile(with_zero_rows(), (1, 12))),
        [node("Gather", ["table", "x"], "y", axis=1)],
        [TOKENS, "n", 5],
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_a_table_stays(case: str) -> None:
    table, nodes, output = STAYS[case]
    model = words(table, *nodes, output=output)
    assert merge_zero_rows(model) == model


def test_a_table_that_is_an_output_stays() -> None:
    model = words(with_zero_rows(), node("Gather", ["table", "x"], "y"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("table", TensorProto.FLOAT, [TOKENS, WIDTH]))
    assert merge_zero_rows(model) == model
