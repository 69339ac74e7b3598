"""A sparse tensor in a graph of opset 11 or 12: operators that make it, because OpenVINO reads Constant(sparse_value) from opset 13 on.

ConstantOfShape, ScatterElements and Reshape, all of whose inputs are Constant nodes, are computed once by ONNX Runtime and OpenVINO, as
they load the file, and are constants also where OpenVINO asks for such: weights of LSTM, GRU and RNN nodes. The layout is in sparse_onnx.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.graph.content import check_elements
from compressor.graph.names import free_prefix

Array = npt.NDArray[Any]

FIRST_OPSET_WITHOUT = 13
# ONNX Runtime computes a tensor of 1,024 MiB as it loads the file and not one of 1,250, and what it does not it computes in every run.
MAX_BYTES = 2**29


def new_names(prefix: str) -> Iterator[str]:
    return (f"{prefix}{number}" for number in count())


def prefix_of(plain: ModelProto, sparse: ModelProto) -> str | None:
    """Of the names that `encode` has taken where `plain` became `sparse`; None where it was not called."""
    prefix = free_prefix(plain)
    return prefix if any(name.startswith(prefix) for node in sparse.graph.node for name in node.input) else None


def encode(array: Array, output: str, names: Iterator[str]) -> list[NodeProto]:
    """The nodes that make `array`, of one element at least, and call it `output`; new names are taken from `names`."""
    flat = array.reshape(-1)
    positions = np.flatnonzero(flat)
    zero = helper.make_tensor("", helper.np_dtype_to_tensor_dtype(array.dtype), [1], [0])
    if not len(positions):
        shape = next(names)
        return [_sizes(shape, *array.shape), helper.make_node("ConstantOfShape", [shape], [output], value=zero)]
    size, zeros, indices, values, filled, shape = (next(names) for _ in range(6))
    return [
        _sizes(size, array.size),
        helper.make_node("ConstantOfShape", [size], [zeros], value=zero),
        _sizes(indices, *positions.tolist()),
        helper.make_node("Constant", [], [values], value=numpy_helper.from_array(flat[positions])),
        helper.make_node("ScatterElements", [zeros, indices, values], [filled]),
        _sizes(shape, *array.shape),
        helper.make_node("Reshape", [filled, shape], [output]),
    ]


def materialise(model: ModelProto, prefix: str) -> None:
    """Dense initialisers in place of all nodes that `encode` has made with names of this prefix.

    Raises:
        GraphTooLarge: the tensors have more elements than are taken; none of them is made then.
        ValueError, KeyError or IndexError: the nodes are not as `encode` makes them.
    """
    nodes = [node for node in model.graph.node if any(name.startswith(prefix) for name in (*node.input, *node.output))]
    made_by = {name: node for node in nodes for name in node.output}
    found = [_Found.of(node, made_by) for node in nodes if not node.output[0].startswith(prefix)]
    check_elements(sum(math.prod(each.shape) for each in found), sum(len(each.indices) for each in found))
    arrays = {each.output: each.dense() for each in found}
    written = [node for each in found for node in encode(arrays[each.output], each.output, iter(each.names))]
    if sorted(map(_bare, written)) != sorted(map(_bare, nodes)):
        raise ValueError("its sparse tensors are not as they are written")
    theirs = made_by.keys()
    others = [node for node in model.graph.node if theirs.isdisjoint(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(others)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())


@dataclass(frozen=True)
class _Found:
    """What the nodes before `output` say; `names` are those between, in the order of `encode`."""

    output: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    indices: Array
    values: Array

    @classmethod
    def of(cls, end: NodeProto, made_by: Mapping[str, NodeProto]) -> Self:
        shape = _constant(end.input[-1], made_by)
        if shape.dtype != np.int64 or shape.ndim != 1 or not len(shape) or shape.min() < 1:
            raise ValueError(f"{end.output[0]!r} has no shape")
        sizes = tuple(shape.tolist())
        if end.op_type == "ConstantOfShape":
            nothing = numpy_helper.to_array(end.attribute[0].t)[:0]
            return cls(end.output[0], (end.input[0],), sizes, np.zeros(0, np.int64), nothing)
        scatter = made_by[end.input[0]]
        zeros, indices, values = scatter.input
        names = (made_by[zeros].input[0], zeros, indices, values, end.input[0], end.input[1])
        return cls(end.output[0], names, sizes, _constant(indices, made_by), _constant(values, made_by))

    def dense(self) -> Array:
        array = np.zeros(self.shape, self.values.dtype)
        array.reshape(-1)[self.indices] = self.values
        return array


def _sizes(name: str, *numbers: int) -> NodeProto:
    """Integers as varints, which raw bytes are longer than."""
    return helper.make_node("Constant", [], [name], value=TensorProto(data_type=TensorProto.INT64, dims=[len(numbers)], int64_data=numbers))


def _constant(name: str, made_by: Mapping[str, NodeProto]) -> Array:
    return numpy_helper.to_array(made_by[name].attribute[0].t)


def _bare(node: NodeProto) -> bytes:
    """The node without what is only noted of it."""
    bare = NodeProto(op_type=node.op_type, domain=node.domain, input=node.input, output=node.output, attribute=node.attribute)
    return bytes(bare.SerializeToString(deterministic=True))
