"""Tensors of an ONNX file as numpy arrays and torch tensors."""

import numpy as np
import torch
from onnx import NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from compressor.errors import UnsupportedModel

TORCH_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.BOOL: torch.bool,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
}

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})

_HALF = (torch.float16, torch.bfloat16)


def torch_dtype(elem_type: int, where: str = "model") -> torch.dtype:
    """The dtype that the file declares for `where`.

    Raises: UnsupportedModel for strings, complex numbers and the small quantised types.
    """
    if elem_type not in TORCH_DTYPES:
        known = TensorProto.DataType.values()
        name = TensorProto.DataType.Name(elem_type) if elem_type in known else str(elem_type)
        raise UnsupportedModel(
            f"The element type {name} is not supported.",
            param=where,
            suggestion="Export the model in float32 or float16, not quantised.",
        )
    return TORCH_DTYPES[elem_type]


def compute_dtype(elem_type: int, where: str = "model") -> torch.dtype:
    """The dtype that the module computes in: half precision is trained in float32 and written back as half."""
    return in_compute(torch_dtype(elem_type, where))


def in_compute(dtype: torch.dtype) -> torch.dtype:
    """`dtype`, or float32 for half precision."""
    return torch.float32 if dtype in _HALF else dtype


def to_torch(array: np.ndarray, elem_type: int, where: str = "model") -> torch.Tensor:
    """`array` as a tensor of its own memory, in the dtype that the module computes in."""
    dtype = compute_dtype(elem_type, where)
    if dtype.is_floating_point:
        array = array.astype(np.float64 if dtype == torch.float64 else np.float32)
    return torch.from_numpy(np.array(array, order="C", copy=True))


def constant_array(node: NodeProto) -> tuple[np.ndarray, int] | None:
    """The dense array that a Constant node holds and its element type; None where it holds strings."""
    attribute = node.attribute[0]
    match attribute.name:
        case "value":
            return numpy_helper.to_array(attribute.t), attribute.t.data_type
        case "sparse_value":
            return dense_array(attribute.sparse_tensor), attribute.sparse_tensor.values.data_type
        case "value_float":
            return np.array(attribute.f, dtype=np.float32), TensorProto.FLOAT
        case "value_floats":
            return np.array(attribute.floats, dtype=np.float32), TensorProto.FLOAT
        case "value_int":
            return np.array(attribute.i, dtype=np.int64), TensorProto.INT64
        case "value_ints":
            return np.array(attribute.ints, dtype=np.int64), TensorProto.INT64
    return None


def dense_array(sparse: SparseTensorProto) -> np.ndarray:
    """A sparse tensor with linear or coordinate indices as a dense array."""
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return dense


def numpy_dtype(elem_type: int) -> np.dtype:
    """The numpy dtype of an ONNX element type; bfloat16 comes from ml_dtypes."""
    return helper.tensor_dtype_to_np_dtype(elem_type)
