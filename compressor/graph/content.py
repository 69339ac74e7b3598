"""What a tensor of an untrusted file holds: inside the file, as much as it declares, of a known type, and no NaN."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from onnx import NodeProto, SparseTensorProto, TensorProto, numpy_helper

from compressor.errors import ExternalData, GraphTooLarge, InvalidModel, UnsupportedModel
from compressor.graph.tensors import FLOAT_TYPES

MAX_RANK = 16
MAX_ELEMENTS = 2**31  # of one tensor
# Of all sparse tensors together, once they are dense: a few bytes may stand for gigabytes of zeros. What we deliver keeps one weight in
# some hundreds, never one in thousands of a large network.
MAX_SPARSE_ELEMENTS = 2**28
MAX_EMPTY_ELEMENTS = 2**24
MAX_ELEMENTS_PER_NONZERO = 2**12

EXPORT_AGAIN = "Export the model again, for example with torch.onnx.export(model, args, path, dynamo=True, external_data=False)."

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


def check_tensor(tensor: TensorProto, where: str) -> None:
    """Raises: ExternalData, InvalidModel, UnsupportedModel, GraphTooLarge."""
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
        raise InvalidModel(f"The tensor {where!r} is split into segments.", param=where, suggestion=EXPORT_AGAIN)
    _check_size(tensor, elements, where)
    if tensor.data_type in FLOAT_TYPES and elements:
        _check_finite(numpy_helper.to_array(tensor), where)


def check_sparse(sparse: SparseTensorProto, where: str) -> None:
    """Indices are linear or by coordinate, sorted, unique and inside the tensor.

    Raises: as check_tensor.
    """
    check_tensor(sparse.values, where)
    check_tensor(sparse.indices, where)
    _elements(sparse.dims, where)
    count, rank = sparse.values.dims, len(sparse.dims)
    shape = list(sparse.indices.dims)
    if len(count) != 1 or sparse.indices.data_type != TensorProto.INT64 or rank == 0 or shape not in ([count[0]], [count[0], rank]):
        raise InvalidModel(f"The sparse tensor {where!r} has indices of the wrong shape.", param=where, suggestion=EXPORT_AGAIN)
    indices = numpy_helper.to_array(sparse.indices)
    if indices.ndim == 2:
        limits = np.array(sparse.dims, dtype=np.int64)
        inside = bool(((indices >= 0) & (indices < limits)).all())
        indices = np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims)) if inside and indices.size else indices.reshape(-1)
    else:
        inside = not indices.size or (int(indices.min()) >= 0 and int(indices.max()) < math.prod(sparse.dims))
    if not inside or bool((indices[1:] <= indices[:-1]).any()):
        raise InvalidModel(
            f"The sparse tensor {where!r} has indices outside of it, unsorted or twice.", param=where, suggestion=EXPORT_AGAIN
        )


def check_sparse_total(nodes: Iterable[NodeProto]) -> None:
    """Raises: GraphTooLarge where the file's sparse tensors would become too large, together or for what is in them."""
    sparse = [attribute.sparse_tensor for node in nodes for attribute in node.attribute if attribute.HasField("sparse_tensor")]
    check_elements(sum(math.prod(tensor.dims) for tensor in sparse), sum(math.prod(tensor.values.dims) for tensor in sparse))


def check_elements(elements: int, nonzeros: int) -> None:
    """Of all sparse tensors of a file together. Raises: GraphTooLarge."""
    check_count(f"elements in sparse tensors with {nonzeros:,} numbers", elements, max_sparse_elements(nonzeros))


def max_sparse_elements(nonzeros: int) -> int:
    """That all sparse tensors of a file with so many nonzeros may have, once they are dense."""
    return min(MAX_SPARSE_ELEMENTS, MAX_EMPTY_ELEMENTS + MAX_ELEMENTS_PER_NONZERO * nonzeros)


def check_count(what: str, count: int, limit: int, where: str = "model") -> None:
    """Raises: GraphTooLarge."""
    if count > limit:
        raise GraphTooLarge(f"{count:,} {what}; at most {limit:,} are taken.", param=where, suggestion="Upload a smaller model.")


def not_finite(where: str) -> InvalidModel:
    """What is raised for a number that no training leaves behind."""
    return InvalidModel(
        f"{where!r} holds values that are not finite.", param=where, suggestion="Upload a model whose training did not diverge."
    )


def _elements(dims: Sequence[int], where: str) -> int:
    check_count("dimensions of a tensor", len(dims), MAX_RANK, where)
    if any(size < 0 for size in dims):
        raise InvalidModel(f"The tensor {where!r} has a negative dimension.", param=where, suggestion=EXPORT_AGAIN)
    # An empty dimension makes no other one harmless: what reduces over it has all their elements.
    check_count("elements in a tensor", math.prod(max(size, 1) for size in dims), MAX_ELEMENTS, where)
    return math.prod(dims)


def _check_size(tensor: TensorProto, elements: int, where: str) -> None:
    """The numbers lie in one field and are as many as the dimensions say."""
    field = _TYPED_FIELDS[tensor.data_type]
    filled = [name for name in sorted(set(_TYPED_FIELDS.values())) if len(getattr(tensor, name))]
    raw = tensor.HasField("raw_data")
    if raw and (filled or tensor.data_type == TensorProto.STRING or len(tensor.raw_data) != elements * _ITEM_BYTES[tensor.data_type]):
        raise _wrong_size(where, f"{len(tensor.raw_data)} bytes", elements)
    if not raw and (set(filled) - {field} or len(getattr(tensor, field)) != elements):
        raise _wrong_size(where, f"{len(getattr(tensor, field))} numbers", elements)


def _check_finite(array: np.ndarray, where: str) -> None:
    """NaN is refused in every tensor, and plus infinity in those of more than one element.

    Minus infinity passes: constants that an attention mask is made of hold it, in files that are in order, and a single infinity is the
    bound of something. Which tensors learn only the import knows: it refuses any infinity in these (check_finite_roles in roles.py).
    """
    with np.errstate(invalid="ignore"):
        largest = float(array.max() if array.dtype.kind == "f" else array.astype(np.float32).max())  # NaN wins over all else
    if math.isnan(largest) or (largest == math.inf and array.size > 1):
        raise not_finite(where)


def _wrong_size(where: str, found: str, elements: int) -> InvalidModel:
    return InvalidModel(
        f"The tensor {where!r} holds {found}, which are not its {elements} elements.",
        param=where,
        suggestion="Upload the file again, whole.",
    )
