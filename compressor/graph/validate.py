"""The structural walk over an untrusted file, before any library sees the graph."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, numpy_helper

from compressor.errors import ExternalData, GraphTooLarge, InvalidModel, UnsupportedModel
from compressor.graph.reader import ONNX_DOMAINS
from compressor.graph.tensors import FLOAT_TYPES

MIN_OPSET, MAX_OPSET = 11, 23
MAX_NODES = 20_000
MAX_INITIALISERS = 20_000
MAX_VALUES = 256  # inputs, and outputs, of the graph
MAX_CONNECTIONS = 4_096  # inputs, or outputs, or attributes of one node
MAX_NAME_LENGTH = 1_024
MAX_RANK = 16
MAX_ELEMENTS = 2**31  # of one tensor
MAX_SPARSE_ELEMENTS = 2**29  # of all sparse tensors together, when made dense

# A graph may hold nodes of ai.onnx.ml beside the part that is compressed: scikit-learn adds them for its label output.
_DOMAINS = (*ONNX_DOMAINS, "ai.onnx.ml")

_QUANTISED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)

_EXPORT_AGAIN = "Export the model again, for example with torch.onnx.export(model, args, path, dynamo=True, external_data=False)."

# The field of TensorProto in which the numbers of an element type lie, where they are not raw bytes.
_TYPED_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
    **dict.fromkeys(
        (
            TensorProto.FLOAT16,
            TensorProto.BFLOAT16,
            TensorProto.BOOL,
            TensorProto.INT8,
            TensorProto.INT16,
            TensorProto.INT32,
            TensorProto.UINT8,
            TensorProto.UINT16,
        ),
        "int32_data",
    ),
}
_ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.BOOL: 1,
    TensorProto.INT8: 1,
    TensorProto.INT16: 2,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.UINT8: 1,
    TensorProto.UINT16: 2,
    TensorProto.UINT32: 4,
    TensorProto.UINT64: 8,
}


def parse_model(data: bytes) -> ModelProto:
    """The model in `data`, with everything refused that another library could be led astray by.

    Args:     data: a whole ONNX file.
    Returns:  the message; its tensors lie inside it and have the sizes that they declare.
    Raises:
        InvalidModel: no ONNX model, or one that contradicts itself.
        ExternalData: a tensor that lies in another file.
        GraphTooLarge: more nodes, tensors or elements than are taken.
        UnsupportedModel: control flow, functions, foreign domains, quantised or sparse input, an opset outside 11 to 23.
    """
    try:
        model = ModelProto()
        model.ParseFromString(data)
        _check_model(model)
    except (DecodeError, UnicodeDecodeError) as error:
        raise InvalidModel("The file is not an ONNX model: it cannot be decoded.", param="model", suggestion=_EXPORT_AGAIN) from error
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise InvalidModel(
            f"The ONNX checker refuses the model: {_shortened(str(error))}", param="model", suggestion=_EXPORT_AGAIN
        ) from error
    return model


def _check_model(model: ModelProto) -> None:
    if not model.HasField("graph") or not model.graph.node:
        raise InvalidModel("The file is not an ONNX model: it has no graph.", param="model", suggestion=_EXPORT_AGAIN)
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
    _check_count("nodes", len(graph.node), MAX_NODES)
    _check_count("initialisers", len(graph.initializer), MAX_INITIALISERS)
    _check_count("inputs", len(graph.input), MAX_VALUES + len(graph.initializer))
    _check_count("outputs", len(graph.output), MAX_VALUES)
    for name in _names(model):
        if not isinstance(name, str):  # protobuf gives bytes where a string is no UTF-8
            raise InvalidModel("A name in the model is not UTF-8.", param="model", suggestion=_EXPORT_AGAIN)
        _check_count("characters in a name", len(name), MAX_NAME_LENGTH)
    for node in graph.node:
        _check_node(node)
    for tensor in graph.initializer:
        _check_tensor(tensor, tensor.name or "initializer")
    _check_unique("initialiser", [tensor.name for tensor in graph.initializer])
    _check_sparse_total(graph.node)


def _check_opsets(model: ModelProto) -> None:
    versions = [entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS]
    if len(versions) != 1:
        raise InvalidModel(
            f"The model imports the ONNX operators {len(versions)} times, not once.", param="opset_import", suggestion=_EXPORT_AGAIN
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
    _check_count("inputs of a node", len(node.input), MAX_CONNECTIONS, where)
    _check_count("outputs of a node", len(node.output), MAX_CONNECTIONS, where)
    _check_count("attributes of a node", len(node.attribute), MAX_CONNECTIONS, where)
    _check_unique(f"attribute of node {where!r}", [attribute.name for attribute in node.attribute])
    for attribute in node.attribute:
        _check_attribute(attribute, where)
    if node.op_type == "Constant" and (len(node.attribute) != 1 or len(node.output) != 1):
        raise InvalidModel(f"The Constant node {where!r} must have one attribute and one output.", param=where, suggestion=_EXPORT_AGAIN)


def _check_attribute(attribute: AttributeProto, where: str) -> None:
    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or attribute.HasField("g") or attribute.graphs:
        raise UnsupportedModel(
            f"Node {where!r} holds a graph of its own (If, Loop or Scan).",
            param=where,
            suggestion="Export the model without control flow: for fixed options, or with torch.onnx.export(dynamo=True).",
        )
    if attribute.ref_attr_name:
        raise InvalidModel(f"An attribute of node {where!r} refers to a function.", param=where, suggestion=_EXPORT_AGAIN)
    if attribute.HasField("t"):
        _check_tensor(attribute.t, where)
    for tensor in attribute.tensors:
        _check_tensor(tensor, where)
    for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []), *attribute.sparse_tensors):
        _check_sparse(sparse, where)


def _check_tensor(tensor: TensorProto, where: str) -> None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ExternalData(
            f"The tensor {where!r} lies outside the file.", param=where, suggestion="Save the model as one file (external_data=False)."
        )
    elements = _elements(tensor.dims, where)
    if tensor.data_type not in _TYPED_FIELDS:
        raise UnsupportedModel(
            f"The tensor {where!r} has the element type {tensor.data_type}.",
            param=where,
            suggestion="Export the model in float32 or float16, not quantised.",
        )
    if tensor.HasField("segment"):
        raise InvalidModel(f"The tensor {where!r} is split into segments.", param=where, suggestion=_EXPORT_AGAIN)
    _check_content(tensor, elements, where)
    if tensor.data_type in FLOAT_TYPES and elements > 1:
        array = numpy_helper.to_array(tensor)
        if not np.isfinite(array if array.dtype.kind == "f" else array.astype(np.float32)).all():
            raise InvalidModel(
                f"The tensor {where!r} holds values that are not finite.",
                param=where,
                suggestion="Upload a model whose training did not diverge.",
            )


def _check_content(tensor: TensorProto, elements: int, where: str) -> None:
    """The numbers lie in one field and are as many as the dimensions say."""
    field = _TYPED_FIELDS[tensor.data_type]
    filled = [name for name in sorted(set(_TYPED_FIELDS.values())) if len(getattr(tensor, name))]
    raw = tensor.HasField("raw_data")
    if raw and (filled or tensor.data_type == TensorProto.STRING or len(tensor.raw_data) != elements * _ITEM_BYTES[tensor.data_type]):
        raise _wrong_size(where, f"{len(tensor.raw_data)} bytes", elements)
    if not raw and (set(filled) - {field} or len(getattr(tensor, field)) != elements):
        raise _wrong_size(where, f"{len(getattr(tensor, field))} numbers", elements)


def _check_sparse(sparse: SparseTensorProto, where: str) -> None:
    """Indices are linear or by coordinate, sorted, unique and inside the tensor."""
    _check_tensor(sparse.values, where)
    _check_tensor(sparse.indices, where)
    _elements(sparse.dims, where)
    count, rank = sparse.values.dims, len(sparse.dims)
    shape = list(sparse.indices.dims)
    if len(count) != 1 or sparse.indices.data_type != TensorProto.INT64 or rank == 0 or shape not in ([count[0]], [count[0], rank]):
        raise InvalidModel(f"The sparse tensor {where!r} has indices of the wrong shape.", param=where, suggestion=_EXPORT_AGAIN)
    indices = numpy_helper.to_array(sparse.indices)
    if indices.ndim == 2:
        limits = np.array(sparse.dims, dtype=np.int64)
        inside = bool(((indices >= 0) & (indices < limits)).all())
        indices = np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims)) if inside and indices.size else indices.reshape(-1)
    else:
        inside = not indices.size or (int(indices.min()) >= 0 and int(indices.max()) < math.prod(sparse.dims))
    if not inside or (indices.size > 1 and not bool((np.diff(indices) > 0).all())):
        raise InvalidModel(
            f"The sparse tensor {where!r} has indices outside of it, unsorted or twice.", param=where, suggestion=_EXPORT_AGAIN
        )


def _check_sparse_total(nodes: Iterable[NodeProto]) -> None:
    """A few bytes of sparse tensor may stand for gigabytes of zeros."""
    sparse = [attribute.sparse_tensor for node in nodes for attribute in node.attribute if attribute.HasField("sparse_tensor")]
    _check_count("elements in sparse tensors", sum(math.prod(tensor.dims) for tensor in sparse), MAX_SPARSE_ELEMENTS)


def _elements(dims: Sequence[int], where: str) -> int:
    _check_count("dimensions of a tensor", len(dims), MAX_RANK, where)
    if any(size < 0 for size in dims):
        raise InvalidModel(f"The tensor {where!r} has a negative dimension.", param=where, suggestion=_EXPORT_AGAIN)
    _check_count("elements in a tensor", math.prod(dims), MAX_ELEMENTS, where)
    return math.prod(dims)


def _wrong_size(where: str, found: str, elements: int) -> InvalidModel:
    return InvalidModel(
        f"The tensor {where!r} holds {found}, which are not its {elements} elements.",
        param=where,
        suggestion="Upload the file again, whole.",
    )


def _check_count(what: str, count: int, limit: int, where: str = "model") -> None:
    if count > limit:
        raise GraphTooLarge(f"{count:,} {what}; at most {limit:,} are taken.", param=where, suggestion="Upload a smaller model.")


def _check_unique(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidModel(f"The {what} {name!r} is there twice.", param=name, suggestion=_EXPORT_AGAIN)
        seen.add(name)


def _names(model: ModelProto) -> Iterator[object]:
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
