"""Files that name other files, and files whose names are code."""

from collections.abc import Callable

import numpy as np
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from tests.benchmarks.hostile.case import EXECUTED, HARMLESS, LINK, PLANTED, Case, changed
from tests.compressor.graph.models import node, values

Locate = Callable[[str], str]

_OUTSIDE, _INSIDE = "external data absolute or outside cwd", "external data INSIDE cwd, model given as BYTES"
_SPARSE, _NAME = "sparse external bypass, links, traversal", "node name with Python in it"


def externalise(tensor: TensorProto, location: str) -> TensorProto:
    for field in ("raw_data", "float_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "80"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def initialiser(locate: Locate) -> Callable[[str], bytes]:
    return changed(lambda model, planted: externalise(model.graph.initializer[0], locate(planted)))


def _constant(**value: object) -> Callable[[ModelProto], None]:
    return lambda model: model.graph.node.insert(0, node("Constant", [], "c", **value))


def _outside_tensor(planted: str) -> TensorProto:
    return externalise(numpy_helper.from_array(values(4, 5)), planted)


def _constant_tensor(model: ModelProto, planted: str) -> None:
    _constant(value=_outside_tensor(planted))(model)


def _constant_sparse(part: str) -> Callable[[ModelProto, str], None]:
    def change(model: ModelProto, planted: str) -> None:
        numbers, places = numpy_helper.from_array(values(2)), numpy_helper.from_array(np.array([1, 5]))
        sparse = SparseTensorProto(values=numbers, indices=places, dims=[4, 5])
        externalise(getattr(sparse, part), planted)
        _constant(sparse_value=sparse)(model)

    return change


def _tensor_list(model: ModelProto, planted: str) -> None:
    model.graph.node[0].attribute.append(AttributeProto(name="extra", type=AttributeProto.TENSORS, tensors=[_outside_tensor(planted)]))


def _fill(model: ModelProto, planted: str) -> None:
    model.graph.node.insert(0, node("ConstantOfShape", ["b1"], "c", value=_outside_tensor(planted)))


def _sparse_initialiser(model: ModelProto, planted: str) -> None:
    sparse = model.graph.sparse_initializer.add(dims=[4, 5])
    sparse.values.CopyFrom(externalise(numpy_helper.from_array(values(2), "s"), planted))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1, 5])))


def _branch(model: ModelProto, planted: str) -> None:
    tensor = _outside_tensor(planted)
    tensor.name = "inner"
    out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Identity", ["inner"], "out")], "branch", [], [out], [tensor])
    model.graph.node.append(node("If", ["flag"], "z", then_branch=branch, else_branch=branch))


def _function(model: ModelProto, planted: str) -> None:
    inner = node("Constant", [], "b", value=_outside_tensor(planted))
    model.functions.append(helper.make_function("local", "F", ["a"], ["b"], [inner], [helper.make_opsetid("", 17)]))


def _without_location(model: ModelProto, _: str) -> None:
    externalise(model.graph.initializer[0], "x").ClearField("external_data")


def _unmarked(model: ModelProto, planted: str) -> None:
    model.graph.initializer[0].external_data.add(key="location", value=planted)


def _code_as_names(model: ModelProto, _: str) -> None:
    code = f"x\"+str(open('{EXECUTED}','w').write('x'))+\""
    attack = f"a'] + __import__('os').system('touch {EXECUTED}') + ['"
    model.graph.name = model.producer_name = model.graph.node[0].doc_string = code
    for index, (given, made) in enumerate(zip(model.graph.node, (code, attack, "{0.__class__.__init__.__globals__}", "y"), strict=True)):
        given.name = code + "#" * index
        given.output[0] = made
    model.graph.node[1].input[0] = code
    model.graph.node[2].input[0] = attack
    model.graph.node[3].input[0] = model.graph.node[2].output[0]


def _path_as_names(model: ModelProto, planted: str) -> None:
    renamed = {"w1": planted, "b1": f"../{PLANTED}", "w2": "%s%n{}"}
    for tensor in model.graph.initializer:
        tensor.name = renamed[tensor.name]
    for given in model.graph.node:
        given.input[:] = [renamed.get(name, name) for name in given.input]


def _format_as_place(model: ModelProto, _: str) -> None:
    model.graph.node[0].name = "{0.__class__}%s%n"
    model.graph.initializer[0].dims[:] = [5, 4]


CASES = (
    Case("external: absolute path", _OUTSIDE, "external_data", initialiser(lambda planted: planted)),
    Case("external: beside the working directory", _OUTSIDE, "external_data", initialiser(lambda _: f"../{PLANTED}")),
    Case("external: /proc/self/environ", _OUTSIDE, "external_data", initialiser(lambda _: "/proc/self/environ")),
    Case("external: a URL", _OUTSIDE, "external_data", initialiser(lambda planted: f"file://{planted}")),
    Case("external: in the working directory", _INSIDE, "external_data", initialiser(lambda _: PLANTED)),
    Case("external: by the directory's own name", _INSIDE, "external_data", initialiser(lambda _: f"../cwd/{PLANTED}")),
    Case("external: a link in the working directory", _SPARSE, "external_data", initialiser(lambda _: LINK)),
    Case("external: folders up and down again", _SPARSE, "external_data", initialiser(lambda planted: f"x/../../../../../..{planted}")),
    Case("external: a Constant's value", _OUTSIDE, "external_data", changed(_constant_tensor)),
    Case("external: values of a sparse Constant", _SPARSE, "external_data", changed(_constant_sparse("values"))),
    Case("external: indices of a sparse Constant", _SPARSE, "external_data", changed(_constant_sparse("indices"))),
    Case("external: a list of tensors", _OUTSIDE, "external_data", changed(_tensor_list)),
    Case("external: what a shape is filled with", _OUTSIDE, "external_data", changed(_fill)),
    Case("external: a sparse initialiser", _SPARSE, "unsupported_model", changed(_sparse_initialiser)),
    Case("external: inside a branch", _OUTSIDE, "unsupported_model", changed(_branch)),
    Case("external: inside a function", _OUTSIDE, "unsupported_model", changed(_function)),
    Case("external: without a location", _OUTSIDE, "external_data", changed(_without_location)),
    Case("external: a location that is not marked", _OUTSIDE, "external_data", changed(_unmarked)),
    Case("names: Python", _NAME, HARMLESS, changed(_code_as_names)),
    Case("names: paths and formats", _NAME, HARMLESS, changed(_path_as_names)),
    Case("names: a format in a refusal", _NAME, "invalid_model", changed(_format_as_place)),
)
