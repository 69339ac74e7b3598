"""Which matrices a graph applies to its inputs, and to which value of the graph."""

from onnx import helper

from compressor.graph.entry import matrices_at_input
from compressor.graph.node import Node


def found(*nodes: tuple, weights: tuple[str, ...] = ("w",)) -> dict[str, str]:
    made = [Node.from_proto(helper.make_node(kind, inputs, [output], **attributes), 17) for kind, inputs, output, attributes in nodes]
    return matrices_at_input(made, weights, {"x"})


def test_a_product_with_the_input_itself():
    assert found(("MatMul", ["x", "w"], "y", {})) == {"w": "x"}
    assert found(("Gemm", ["x", "w", "b"], "y", {"transB": 1})) == {"w": "x"}


def test_features_may_be_moved_and_rescaled_on_the_way():
    nodes = [("Sub", ["x", "mean"], "a", {}), ("Div", ["a", "std"], "b", {}), ("Flatten", ["b"], "c", {}), ("Gemm", ["c", "w"], "y", {})]
    assert found(*nodes) == {"w": "c"}
    assert found(("Transpose", ["w"], "t", {}), ("MatMul", ["x", "t"], "y", {})) == {"w": "x"}


def test_a_shape_that_is_computed_from_the_input_moves_features_too():
    nodes = [("Shape", ["x"], "s", {}), ("Reshape", ["x", "s"], "f", {}), ("MatMul", ["f", "w"], "y", {})]
    assert found(*nodes) == {"w": "f"}


def test_mixed_features_and_shared_matrices_are_left_out():
    assert found(("MatMul", ["x", "w"], "h", {}), ("Relu", ["h"], "r", {}), ("MatMul", ["r", "v"], "y", {}), weights=("w", "v")) == {
        "w": "x"
    }
    assert found(("Add", ["x", "x"], "a", {}), ("MatMul", ["a", "w"], "y", {})) == {}
    assert found(("Conv", ["x", "k"], "a", {}), ("MatMul", ["a", "w"], "y", {})) == {}
    assert found(("MatMul", ["x", "w"], "h", {}), ("MatMul", ["h", "w"], "y", {})) == {}
    assert found(("Mul", ["w", "g"], "s", {}), ("MatMul", ["x", "s"], "y", {})) == {}
    assert found(("Gemm", ["x", "w"], "y", {"transA": 1})) == {}
