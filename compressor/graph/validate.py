"""The structural walk over an untrusted file, before any library sees the graph."""

import math
from collections.abc import Iterator
from mmap import mmap

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto

from compressor.config import MAX_OPSET, MIN_OPSET
from compressor.errors import InvalidModel, UnsupportedModel
from compressor.graph.content import EXPORT_AGAIN, MAX_RANK, check_count, check_sparse, check_sparse_total, check_tensor, not_finite
from compressor.graph.reader import ONNX_DOMAINS
from compressor.graph.wire import check_wire

MAX_NODES = 20_000
MAX_PRODUCTS = 5_000  # nodes that multiply by weights, which ONNX Runtime lays out anew for each; a network has some hundreds
MAX_INITIALISERS = 20_000
MAX_VALUES = 256  # inputs, and outputs, of the graph
MAX_CONNECTIONS = 4_096  # inputs, or outputs, or attributes of one node
MAX_ALL_CONNECTIONS = 2**18  # of all nodes; 20,000 of them have 80,000
MAX_NAME_LENGTH = 1_024
MAX_TEXT_LENGTH = 4_096  # of an attribute

# A graph may hold nodes of ai.onnx.ml beside the part that is compressed: scikit-learn adds them for its label output.
_DOMAINS = (*ONNX_DOMAINS, "ai.onnx.ml")

_PRODUCTS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})

_QUANTISED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)


def parse_model(data: bytes | mmap) -> ModelProto:
    """The model in `data`, with everything refused that another library could be led astray by.

    Args:     data: a whole ONNX file; of one that is mapped, no more is read than it takes to refuse it.
    Returns:  the message; its tensors lie inside it and have the sizes that they declare.
    Raises:
        InvalidModel: no ONNX model, or one that contradicts itself.
        ExternalData: a tensor that lies in another file.
        GraphTooLarge: more fields, nodes, tensors or elements than are taken.
        UnsupportedModel: control flow, functions, foreign domains, quantised or sparse input, an opset outside 11 to 23.
    """
    check_wire(memoryview(data))
    model = ModelProto()
    try:
        model.ParseFromString(bytes(data))
    except DecodeError as error:
        raise InvalidModel("The file is not an ONNX model: it cannot be decoded.", param="model", suggestion=EXPORT_AGAIN) from error
    _check_model(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise InvalidModel(
            f"The ONNX checker refuses the model: {_shortened(str(error))}", param="model", suggestion=EXPORT_AGAIN
        ) from error
    return model


def _check_model(model: ModelProto) -> None:
    if not model.HasField("graph") or not model.graph.node:
        raise InvalidModel("The file is not an ONNX model: it has no graph.", param="model", suggestion=EXPORT_AGAIN)
    _check_opsets(model)
    if model.functions:
        raise UnsupportedModel(
            "The model has local functions.", param="model", suggestion="Inline them with onnx.inliner.inline_local_functions."
        )
    if model.training_info:
        raise UnsupportedModel("The model has training graphs.", param="model", suggestion="Export the model for inference.")
    graph = model.graph
    if graph.sparse_initializer:
        raise UnsupportedModel(
            "The model has sparse initialisers.", param="model", suggestion="Write them as Constant nodes with sparse_value, or dense."
        )
    check_count("nodes", len(graph.node), MAX_NODES)
    check_count("nodes with products", sum(node.op_type in _PRODUCTS for node in graph.node), MAX_PRODUCTS)
    check_count("initialisers", len(graph.initializer), MAX_INITIALISERS)
    check_count("inputs", len(graph.input), MAX_VALUES + len(graph.initializer))
    check_count("outputs", len(graph.output), MAX_VALUES)
    connections = sum(len(node.input) + len(node.output) for node in graph.node)
    check_count("inputs and outputs of nodes", connections, MAX_ALL_CONNECTIONS)
    for name in _names(model):
        check_count("characters in a name", len(name), MAX_NAME_LENGTH)
    for info in (*graph.input, *graph.output):
        _check_dimensions(info)
    for node in graph.node:
        _check_node(node)
    for tensor in graph.initializer:
        check_tensor(tensor, tensor.name or "initializer")
    _check_unique("initialiser", [tensor.name for tensor in graph.initializer])
    check_sparse_total(graph.node)


def _check_opsets(model: ModelProto) -> None:
    # skl2onnx writes the same line twice.
    versions = [version for _, version in {(entry.domain, entry.version) for entry in model.opset_import if entry.domain in ONNX_DOMAINS}]
    if len(versions) != 1:
        raise InvalidModel(
            f"The model imports the ONNX operators {len(versions)} times, not once.", param="opset_import", suggestion=EXPORT_AGAIN
        )
    if not MIN_OPSET <= versions[0] <= MAX_OPSET:
        raise UnsupportedModel(
            f"Opset {versions[0]} is not supported.",
            param="opset_import",
            suggestion=f"Export the model with an opset from {MIN_OPSET} to {MAX_OPSET} (opset_version=20).",
        )


def _check_node(node: NodeProto) -> None:
    where = node.name or node.op_type or "node"
    if node.domain not in _DOMAINS:
        raise UnsupportedModel(
            f"Node {where!r} uses {node.op_type!r} of the domain {node.domain!r}.",
            param=where,
            suggestion="Export the model with operators of ai.onnx only.",
        )
    if node.op_type in _QUANTISED:
        raise UnsupportedModel(
            f"Node {where!r} is {node.op_type}: the model is quantised.",
            param=where,
            suggestion="Upload the float model; quantise after the compression.",
        )
    check_count("inputs of a node", len(node.input), MAX_CONNECTIONS, where)
    check_count("outputs of a node", len(node.output), MAX_CONNECTIONS, where)
    check_count("attributes of a node", len(node.attribute), MAX_CONNECTIONS, where)
    _check_unique(f"attribute of node {where!r}", [attribute.name for attribute in node.attribute])
    is_constant = node.op_type == "Constant" and node.domain in ONNX_DOMAINS
    for attribute in node.attribute:
        _check_attribute(attribute, where)
        _check_numbers(attribute, where, may_be_infinite=is_constant)
        if not is_constant and node.domain in ONNX_DOMAINS:
            _check_lengths(attribute, where)
    if node.op_type == "Constant" and (len(node.attribute) != 1 or len(node.output) != 1):
        raise InvalidModel(f"The Constant node {where!r} must have one attribute and one output.", param=where, suggestion=EXPORT_AGAIN)


def _check_attribute(attribute: AttributeProto, where: str) -> None:
    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or attribute.HasField("g") or attribute.graphs:
        raise UnsupportedModel(
            f"Node {where!r} holds a graph of its own (If, Loop or Scan).",
            param=where,
            suggestion="Export the model without control flow: for fixed options, or with torch.onnx.export(dynamo=True).",
        )
    if attribute.ref_attr_name:
        raise InvalidModel(f"An attribute of node {where!r} refers to a function.", param=where, suggestion=EXPORT_AGAIN)
    if attribute.HasField("t"):
        check_tensor(attribute.t, where)
    for tensor in attribute.tensors:
        check_tensor(tensor, where)
    for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []), *attribute.sparse_tensors):
        check_sparse(sparse, where)


def _check_numbers(attribute: AttributeProto, where: str, *, may_be_infinite: bool) -> None:
    """No NaN, and no infinity but in what a Constant node holds: a bound, or a part of a mask, which the import judges by its role."""
    numbers = (attribute.f, *attribute.floats)
    if any(math.isnan(number) or (math.isinf(number) and not may_be_infinite) for number in numbers):
        raise not_finite(where)


def _check_lengths(attribute: AttributeProto, where: str) -> None:
    """No operator of the table has use for more: sizes and axes are as many as dimensions, parts as many as outputs."""
    lists = (attribute.ints, attribute.floats, attribute.strings, attribute.tensors, attribute.sparse_tensors, attribute.type_protos)
    check_count("values in an attribute", max(map(len, lists)), MAX_CONNECTIONS, where)
    check_count("bytes in a text", max(map(len, (attribute.s, *attribute.strings))), MAX_TEXT_LENGTH, where)


def _check_dimensions(info: ValueInfoProto) -> None:
    if info.type.HasField("tensor_type"):
        check_count("dimensions of an input or output", len(info.type.tensor_type.shape.dim), MAX_RANK, info.name)


def _check_unique(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidModel(f"The {what} {name!r} is there twice.", param=name, suggestion=EXPORT_AGAIN)
        seen.add(name)


def _names(model: ModelProto) -> Iterator[str]:
    """Every name that the library may look at or show."""
    graph = model.graph
    for entry in model.opset_import:
        yield entry.domain
    for info in (*graph.input, *graph.output):
        yield info.name
    for tensor in graph.initializer:
        yield tensor.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 500 else line[:497] + "..."
