"""The axis along which a weight's neurons, filters or rows lie, told by what reads it."""

import numpy as np
import pytest
from onnx import NodeProto, TensorProto

from compressor.graph.groups import GroupAxis, group_axes_of
from compressor.graph.module import OnnxModule
from compressor.graph.reader import read_graph
from tests.compressor.graph.models import model_of, node, values


def test_groups_are_output_neurons_filters_and_table_rows_also_through_a_transpose() -> None:
    nodes = [
        node("Conv", ["x", "conv"], "c", kernel_shape=[3, 3]),
        node("ConvTranspose", ["c", "deconv"], "d", kernel_shape=[3, 3]),
        node("Flatten", ["d"], "f"),
        node("Gemm", ["f", "gemm"], "g"),
        node("Gemm", ["g", "gemm_t"], "h", transB=1),
        node("Transpose", ["matmul_t"], "turned"),
        node("MatMul", ["h", "turned"], "i"),
        node("MatMul", ["i", "matmul"], "y"),
    ]
    shapes = {"conv": (2, 1, 3, 3), "deconv": (2, 5, 3, 3), "gemm": (5 * 36, 7), "gemm_t": (8, 7), "matmul_t": (9, 8), "matmul": (9, 3)}
    module = OnnxModule(model_of(nodes, {"x": ["n", 1, 6, 6]}, {"y": ["n", 3]}, {name: values(*shape) for name, shape in shapes.items()}))
    assert module.group_axes == {
        name: GroupAxis(axis) for name, axis in {"conv": 0, "deconv": 1, "gemm": 1, "gemm_t": 0, "matmul_t": 0, "matmul": 1}.items()
    }


def test_a_table_tied_to_the_output_has_the_rows_of_both() -> None:
    nodes = [node("Gather", ["tied", "x"], "rows"), node("Transpose", ["tied"], "turned"), node("MatMul", ["rows", "turned"], "y")]
    module = OnnxModule(model_of(nodes, {"x": ["n"]}, {"y": ["n", 7]}, {"tied": values(7, 3)}, types={"x": TensorProto.INT64}))
    assert module.group_axes == {"tied": GroupAxis(0)}


@pytest.mark.parametrize(("shape", "size"), [([0, 5, 3, 4], 4), ([0, 5, 12], 1), ([0, 5, 2, 4], 1)])
def test_neurons_that_attention_splits_into_heads_are_heads(shape, size) -> None:
    """[n, 5, 8] to twelve neurons, three heads of four; not where they are merely reshaped, or into something else."""
    nodes = [node("MatMul", ["x", "w"], "a"), node("Add", ["a", "b"], "c"), node("Reshape", ["c", "shape"], "d")]
    perm = [0, 2, 1, 3] if len(shape) == 4 else [0, 2, 1]
    arrays = {"w": values(8, 12), "b": values(12), "shape": np.array(shape)}
    graph = read_graph(model_of([*nodes, node("Transpose", ["d"], "y", perm=perm)], {"x": ["n", 5, 8]}, {"y": []}, arrays))
    found = group_axes_of(graph.needed_nodes(["y"]), {"w": (8, 12)}, {"shape": arrays["shape"]})
    assert found == {"w": GroupAxis(1, size)}


def test_a_weight_without_one_meaning_has_no_groups() -> None:
    """Read both ways round; stacked gates; reshaped."""
    nodes = [
        node("MatMul", ["x", "both"], "a"),
        node("Transpose", ["both"], "turned"),
        node("MatMul", ["a", "turned"], "b"),
        node("RNN", ["b", "input", "recurrent"], ["steps"], hidden_size=3),
        node("Squeeze", ["steps", "one"], "c"),
        node("Reshape", ["flat", "shape"], "square"),
        node("MatMul", ["c", "square"], "y"),
    ]
    arrays = {"both": values(3, 3), "input": values(1, 3, 3), "recurrent": values(1, 3, 3), "flat": values(9, 1)}
    arrays |= {"one": np.array([1]), "shape": np.array([3, 3])}
    module = OnnxModule(model_of(nodes, {"x": ["n", 2, 3]}, {"y": ["n", 2, 3]}, arrays))
    assert module.weight_names == ("both", "input", "recurrent", "flat")
    assert module.group_axes == {}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Gemm", ["x", "w"], "y", transB=5)],
        [node("Transpose", ["w"], "t", perm=[5, 9]), node("MatMul", ["x", "t"], "y")],
    ],
)
def test_attributes_that_are_none_are_no_groups(nodes: list[NodeProto]) -> None:
    graph = read_graph(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(3, 4)}))
    assert group_axes_of(graph.needed_nodes(["y"]), {"w": (3, 4)}, {}) in ({}, {"w": GroupAxis(0)})
