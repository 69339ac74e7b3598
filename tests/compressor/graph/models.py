"""ONNX models written by hand, a few nodes each."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]


def model_of(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    initialisers: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    types: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model with the given nodes; values are float32 unless `types` names another element type."""
    elements = dict(types or {})

    def info(name: str, shape: Shape) -> object:
        return helper.make_tensor_value_info(name, elements.get(name, TensorProto.FLOAT), list(shape))

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info(name, shape) for name, shape in inputs.items()],
        [info(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (initialisers or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str] | str, **attributes: object) -> NodeProto:
    return helper.make_node(operator, list(inputs), [outputs] if isinstance(outputs, str) else list(outputs), **attributes)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear_model(opset: int = 17, rows: int | str = "batch") -> ModelProto:
    """y = relu(x @ w1 + b1) @ w2, probabilities at the end: the smallest model that can be compressed."""
    nodes = [
        node("Gemm", ["x", "w1", "b1"], "hidden"),
        node("Relu", ["hidden"], "positive"),
        node("MatMul", ["positive", "w2"], "scores"),
        node("Softmax", ["scores"], "y", axis=1),
    ]
    arrays = {"w1": values(4, 5), "b1": values(5, seed=1), "w2": values(5, 3, seed=2)}
    return model_of(nodes, {"x": [rows, 4]}, {"y": [rows, 3]}, arrays, opset)
