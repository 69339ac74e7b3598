"""Graphs of a form that is not taken: control flow, functions, foreign operators, contradictions, numbers that are none."""

from collections.abc import Callable

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from tests.benchmarks.hostile.case import HARMLESS, Case, beside, built, changed, summed
from tests.compressor.graph.models import model_of, node, values

_OWN = "own"
_CONTROL, _LAUGHS, _DOMAINS = "If/Loop/Scan; nested If", 'local functions "billion laughs"', "custom domains, com.microsoft"
_SPARSE = "sparse_initializer 200000^2"


def _graph(nodes: list[object], output: str) -> GraphProto:
    return helper.make_graph(nodes, "inner", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def _loop(model: ModelProto, _: str) -> None:
    model.graph.node.append(node("Loop", ["count", "condition"], "z", body=_graph([node("Identity", ["scores"], "out")], "out")))


def _scan(model: ModelProto, _: str) -> None:
    model.graph.node.append(node("Scan", ["scores"], "z", num_scan_inputs=1, body=_graph([node("Identity", ["scores"], "out")], "out")))


def _nested_if(model: ModelProto, _: str) -> None:
    """ONNX Runtime takes a minute to load it."""
    branch = _graph([node("Identity", ["scores"], "out0")], "out0")
    for depth in range(12):
        inner = node("If", ["flag"], f"out{depth + 1}", then_branch=branch, else_branch=branch)
        branch = _graph([inner], f"out{depth + 1}")
    model.graph.node.append(node("If", ["flag"], "z", then_branch=branch, else_branch=branch))


def _laughs(model: ModelProto, _: str) -> None:
    """Each function calls the one before it twice: 2^14 nodes, once they are inlined."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("laugh", 1)]
    for level in range(14):
        call = {"op_type": f"F{level - 1}", "domain": "laugh"} if level else {"op_type": "Relu"}
        nodes = [helper.make_node(inputs=["a"], outputs=["m"], **call), helper.make_node(inputs=["m"], outputs=["b"], **call)]
        model.functions.append(helper.make_function("laugh", f"F{level}", ["a"], ["b"], nodes, opsets))
    model.opset_import.add(domain="laugh", version=1)
    model.graph.node.append(helper.make_node("F13", ["x"], ["z"], domain="laugh"))


def _domain(name: str) -> Callable[[ModelProto, str], None]:
    def change(model: ModelProto, _: str) -> None:
        model.opset_import.add(domain=name, version=1)
        model.graph.node[1].op_type, model.graph.node[1].domain = "FusedMatMul", name

    return change


def _sparse_initialiser(model: ModelProto, _: str) -> None:
    sparse = model.graph.sparse_initializer.add(dims=[200_000, 200_000])
    sparse.values.CopyFrom(numpy_helper.from_array(values(2), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1, 5])))


def _set(initialiser: int, array: np.ndarray) -> Callable[[ModelProto, str], None]:
    def change(model: ModelProto, _: str) -> None:
        tensor = model.graph.initializer[initialiser]
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))

    return change


def _with_one(value: float, *shape: int) -> np.ndarray:
    array = values(*shape)
    array.flat[1] = value
    return array


def _opset(version: int) -> Callable[[ModelProto, str], None]:
    return lambda model, _: setattr(model.opset_import[0], "version", version)


def _node(model: ModelProto, *arguments: object, **attributes: object) -> None:
    model.graph.node.append(node(*arguments, **attributes))


def _append(*arguments: object, **attributes: object) -> Callable[[ModelProto, str], None]:
    return lambda model, _: _node(model, *arguments, **attributes)


def _strings() -> ModelProto:
    nodes = [node("Constant", [], "c", value_strings=[b"a"]), node("Cast", ["c"], "d", to=TensorProto.FLOAT), node("Add", ["x", "d"], "s")]
    return model_of([*nodes, node("MatMul", ["s", "w"], "y")], {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)})


def _unsorted() -> ModelProto:
    nodes = [node("Relu", ["b"], "a"), node("MatMul", ["x", "w"], "b")]
    return model_of(nodes, {"x": ["n", 4]}, {"a": ["n", 3]}, {"w": values(4, 3)})


def _in_circles() -> ModelProto:
    nodes = [node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("MatMul", ["a", "w"], "y")]
    return model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)})


def _nowhere() -> ModelProto:
    return model_of([node("MatMul", ["x", "w"], "z")], {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)})


def _batch_of_seven() -> ModelProto:
    nodes = [node("MatMul", ["x", "w"], "a"), node("Reshape", ["a", "shape"], "y")]
    return model_of(nodes, {"x": [7, 4]}, {"y": [7, 3]}, {"w": values(4, 3), "shape": np.array([7, 3])})


def _data_dependent() -> ModelProto:
    nodes = [node("NonZero", ["x"], "places"), node("Shape", ["places"], "s"), node("ConstantOfShape", ["s"], "zeros")]
    nodes += [node("ReduceSum", ["zeros"], "r", keepdims=0), node("MatMul", ["x", "w"], "a"), node("Add", ["a", "r"], "y")]
    return model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)})


def _size_from_values() -> ModelProto:
    """How much is made, the client's rows say."""
    nodes = [node("ReduceMax", ["n"], "top", keepdims=0), node("Range", ["zero", "top", "one"], "many")]
    nodes += [node("Cast", ["many"], "f", to=TensorProto.FLOAT), node("ReduceSum", ["f"], "r", keepdims=0)]
    nodes += [node("Cast", ["n"], "x", to=TensorProto.FLOAT), node("MatMul", ["x", "w"], "a"), node("Add", ["a", "r"], "y")]
    arrays = {"w": values(4, 3), "zero": np.array(0), "one": np.array(1)}
    return model_of(nodes, {"n": ["n", 4]}, {"y": ["n", 3]}, arrays, types={"n": TensorProto.INT64})


def _scalar_input() -> ModelProto:
    nodes = [node("Mul", ["w", "x"], "a"), node("MatMul", ["a", "w"], "y")]
    return model_of(nodes, {"x": []}, {"y": [4, 4]}, {"w": values(4, 4)})


def _without_weights() -> ModelProto:
    return model_of([node("Relu", ["x"], "y")], {"x": ["n", 4]}, {"y": ["n", 4]})


def _conv(**attributes: object) -> Callable[[str], bytes]:
    """A convolution that is not one."""
    nodes = [node("Conv", ["x", "w"], "y", **attributes)]
    return built(lambda: model_of(nodes, {"x": ["n", 2, 8, 8]}, {"y": ["n", 2, None, None]}, {"w": values(2, 2, 3, 3)}))


_INFINITE, _NAN = float("inf"), float("nan")

CASES = (
    Case("control flow: Loop", _CONTROL, "unsupported_model", changed(_loop)),
    Case("control flow: Scan", _CONTROL, "unsupported_model", changed(_scan)),
    Case("control flow: If in If, 2^12 branches", _CONTROL, "unsupported_model", changed(_nested_if)),
    Case("functions: billion laughs", _LAUGHS, "unsupported_model", changed(_laughs)),
    Case("domain: com.microsoft", _DOMAINS, "unsupported_model", changed(_domain("com.microsoft"))),
    Case("domain: one's own", _DOMAINS, "unsupported_model", changed(_domain("evil"))),
    Case("sparse initialiser of 200,000^2", _SPARSE, "unsupported_model", changed(_sparse_initialiser)),
    Case("training graph", _OWN, "unsupported_model", changed(lambda model, _: model.training_info.add())),
    Case("opset 1", _OWN, "unsupported_model", changed(_opset(1))),
    Case("opset of the future", _OWN, "unsupported_model", changed(_opset(2**40))),
    Case("quantised", _OWN, "unsupported_model", changed(_append("DequantizeLinear", ["x", "b1"], "z"))),
    Case("operator that is missing", _OWN, "unsupported_operator", beside([node("Bernoulli", ["x"], "b"), node("ReduceSum", ["b"], "r")])),
    Case("operator that is none", _OWN, "invalid_model", changed(_append("Exec", ["x"], "z"))),
    Case("strings", _OWN, "unsupported_model", built(_strings)),
    Case("no weights", _OWN, "no_weights", built(_without_weights)),
    Case("nodes out of order", _OWN, "invalid_model", built(_unsorted)),
    Case("nodes in a circle", _OWN, "invalid_model", built(_in_circles)),
    Case("an output that nothing makes", _OWN, "invalid_model", built(_nowhere)),
    Case("a name of 100,000 characters", _OWN, "graph_too_large", changed(_append("Relu", ["x"], "z", name="n" * 100_000))),
    Case("a batch size of 7 built in", _OWN, HARMLESS, built(_batch_of_seven)),
    Case("a size that depends on data: NonZero", _OWN, "unsupported_model", built(_data_dependent)),
    Case("a size that depends on data: Range", _OWN, "unsupported_model", built(_size_from_values)),
    Case("an input without a batch", _OWN, "unsupported_model", built(_scalar_input)),
    Case("NaN in a weight", _OWN, "invalid_model", changed(_set(0, _with_one(_NAN, 4, 5)))),
    Case(
        "NaN alone", _OWN, "invalid_model", changed(lambda m, _: m.graph.initializer.append(numpy_helper.from_array(np.array(_NAN), "n")))
    ),
    Case("infinity in a weight", _OWN, "invalid_model", changed(_set(0, _with_one(_INFINITE, 4, 5)))),
    Case("minus infinity in a weight", _OWN, "invalid_model", changed(_set(0, _with_one(-_INFINITE, 4, 5)))),
    Case("minus infinity in a bias", _OWN, "invalid_model", changed(_set(1, _with_one(-_INFINITE, 5)))),
    Case("NaN in an attribute", _OWN, "invalid_model", changed(_append("LeakyRelu", ["x"], "z", alpha=_NAN))),
    Case("infinity in an attribute", _OWN, "invalid_model", changed(_append("LeakyRelu", ["x"], "z", alpha=-_INFINITE))),
    Case(
        "a product of operands that are not there",
        _OWN,
        "invalid_model",
        beside([node("Einsum", ["x"], "e", equation="nc,cd->nd"), *summed("e")]),
    ),
    Case("a bias that has no name", _OWN, HARMLESS, beside([node("Gemm", ["x", "w", ""], "scores"), *summed("scores")])),
    Case("convolution: stride 0", _OWN, "invalid_model", _conv(strides=[0, 0])),
    Case("convolution: dilation 0", _OWN, "invalid_model", _conv(dilations=[0, 0])),
    Case("convolution: 0 groups", _OWN, "invalid_model", _conv(group=0)),
    Case("convolution: groups of another number", _OWN, "invalid_model", _conv(group=2**40)),
    Case("convolution: padded by less than nothing", _OWN, "invalid_model", _conv(pads=[-9, -9, -9, -9])),
    Case("convolution: dilated beyond 2^32", _OWN, "invalid_model", _conv(dilations=[2**40, 2**40])),
    Case("convolution: strides of 1 dimension", _OWN, "invalid_model", _conv(strides=[1])),
)
