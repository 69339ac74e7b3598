"""`model.onnx`: the client's own graph with every tensor that has enough zeros as `Constant(sparse_value)`.

The one sparse form that the checker passes with full_check, that stock ONNX Runtime and OpenVINO load exactly, and that needs no
runtime of ours. Indices are linear int64 in `int64_data`, which protobuf writes as varints: a third of `raw_data`.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from compressor.atomic import replacing
from compressor.errors import InvalidArtifact
from compressor.graph.content import MAX_ELEMENTS
from compressor.graph.write import float_tensors, write_arrays

Array = npt.NDArray[Any]

# bfloat16 is left out: stock ONNX Runtime has next to no operators for it on the CPU.
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def write(path: Path, model: ModelProto, arrays: Mapping[str, Array]) -> None:
    """Writes `model` with `arrays` in place of its tensors, each sparse or dense, whichever takes fewer bytes.

    Args:
        path: the file; it is replaced as a whole or not at all.
        model: the uploaded model; not changed.
        arrays: new values by ONNX name, of the tensors' own shapes; tensors that are not named keep their values.
    Raises: onnx.checker.ValidationError where the result is not a valid model, which would be a fault of ours.
    """
    sparse = to_sparse(write_arrays(model, arrays))
    onnx.checker.check_model(sparse, full_check=True)
    with replacing(path) as partial:
        partial.write_bytes(sparse.SerializeToString())


def to_sparse(model: ModelProto, names: Collection[str] | None = None) -> ModelProto:
    """A copy of `model` whose float tensors, initialisers and Constant nodes alike, are sparse where that takes fewer bytes.

    Args:   names: of the tensors that this is about; None: all.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants: list[NodeProto] = []
    for tensor in [tensor for tensor in graph.initializer if names is None or tensor.name in names]:
        node = _smaller_constant(tensor, tensor.name, tensor)
        if node is not None:
            constants.append(node)
            graph.initializer.remove(tensor)
    moved = {node.output[0] for node in constants}
    for value in [value for value in graph.input if value.name in moved]:
        graph.input.remove(value)
    nodes = [_sparse_constant_node(node) if names is None or node.output[0] in names else node for node in graph.node]
    del graph.node[:]
    graph.node.extend([*constants, *nodes])
    return result


def read(path: Path) -> dict[str, Array]:
    """All float tensors of rank 1 or more of a model file as dense arrays by name, whether initialiser or Constant, dense or sparse.

    Raises: InvalidArtifact where the file is damaged.
    """
    try:
        model = ModelProto.FromString(path.read_bytes())
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.SPARSE_TENSOR:
                    _check_indices(attribute.sparse_tensor)
        return float_tensors(model)
    except (DecodeError, ValueError, TypeError, IndexError, KeyError) as error:
        raise InvalidArtifact(
            f"{path.name}: not a readable ONNX model ({error}).", param=path.name, suggestion="Download the artifact again."
        ) from error


def _sparse_constant_node(node: NodeProto) -> NodeProto:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return node
    for attribute in node.attribute:
        if attribute.name == "value":
            return _smaller_constant(attribute.t, node.output[0], node) or node
    return node


def _smaller_constant(tensor: TensorProto, output: str, described: TensorProto | NodeProto) -> NodeProto | None:
    """The tensor as Constant(sparse_value), or None where dense takes fewer bytes or ONNX has no sparse form for it.

    Args:   described: from which the node takes its documentation and metadata and, where it is a node, its name.
    """
    # The checker refuses sparse tensors of rank 0 and with empty dimensions.
    if tensor.data_type not in _FLOATS or not tensor.dims or 0 in tensor.dims:
        return None
    name = described.name if isinstance(described, NodeProto) else ""
    node = helper.make_node("Constant", [], [output], name=name, sparse_value=_encode(numpy_helper.to_array(tensor), output))
    is_smaller = node.ByteSize() < tensor.ByteSize()
    node.doc_string = described.doc_string
    node.metadata_props.extend(described.metadata_props)
    return node if is_smaller else None


def _encode(array: Array, name: str) -> SparseTensorProto:
    flat = array.reshape(-1)
    positions = np.flatnonzero(flat)
    values = numpy_helper.from_array(flat[positions], name)
    indices = TensorProto(data_type=TensorProto.INT64, dims=[len(positions)])
    indices.int64_data.extend(positions.tolist())
    return helper.make_sparse_tensor(values, indices, list(array.shape))


def _check_indices(sparse: SparseTensorProto) -> None:
    """Linear, increasing and inside the tensor, as `_encode` writes them."""
    indices = numpy_helper.to_array(sparse.indices)
    numel = math.prod(sparse.dims)
    if numel > MAX_ELEMENTS or indices.shape != tuple(sparse.values.dims) or np.any(indices[1:] <= indices[:-1]):
        raise ValueError("sparse tensor too large, or indices that do not increase")
    if len(indices) and (indices[0] < 0 or indices[-1] >= numel):
        raise ValueError("sparse indices outside the tensor")
