"""The part of `model.packed.onnx` that unpacks its tensors: some thirty standard nodes, all of whose inputs are in the file.

ONNX Runtime computes such nodes once, as it loads the file, and runs what is left: the client's own graph. So that every version does, and
other runtimes give the same numbers, nothing here has a size that only the data tell (NonZero, Compress, Range: not folded since 1.27),
shifts bits (OpenVINO rounds), counts with floats beyond 2^24, or writes one index twice.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.artifacts.packed_payload import Member, Payload, code_weights

Array = npt.NDArray[Any]

# Names behind the prefix, of what a reader looks for; all others are numbers in the digits below, most of them one.
STREAM, HALVES, CODES = "S", "V", "C"

_DIGITS = string.digits + string.ascii_letters.translate(str.maketrans("", "", STREAM + HALVES + CODES))

_SPLIT_TAKES_SIZES_AS_INPUT = 13
_MAX_STEPS = 3  # from the elements of a tensor to the tensor: Mul, Reshape, Cast


def decoder(payload: Payload, prefix: str, opset: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes that unpack `payload`, whose outputs have the members' names, and the initialisers they read.

    Args:
        payload: what to unpack.
        prefix: starts every name but the members', and no name of the client's graph.
        opset: of the client's graph, 11 to 23.
    Returns: nodes, in an order in which they can run, and initialisers: the same for the same arguments.
    """
    graph = _Builder(prefix, opset)
    if payload.sparse:
        parts = graph.split(_sparse_elements(graph, payload), [member.numel for member in payload.sparse])
        for member, part in zip(payload.sparse, parts, strict=True):
            _finish(graph, member, part, rank=2)
    if payload.dense:
        codes = graph.add("Cast", graph.payload(CODES, payload.codes), to=TensorProto.FLOAT)
        parts = graph.split(codes, [member.numel for member in payload.dense])
        for member, part in zip(payload.dense, parts, strict=True):
            _finish(graph, member, part, rank=1)
    return graph.nodes, graph.initialisers


def read_members(graph: GraphProto, prefix: str) -> list[Member]:
    """What the last nodes of the decoder say about the packed tensors of `graph`, in their order.

    Raises: ValueError, KeyError or IndexError where they are not as `decoder` makes them; that they are in all things, the caller checks.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    last = [node for node in graph.node if node.input and node.input[0].startswith(prefix) and not node.output[0].startswith(prefix)]
    return [_read_member(node, producers, constants) for node in last]


def _read_member(node: NodeProto, producers: Mapping[str, NodeProto], constants: Mapping[str, TensorProto]) -> Member:
    name, value = node.output[0], ""
    shape: tuple[int, ...] | None = None
    elem_type, step = int(TensorProto.FLOAT), None
    for _ in range(_MAX_STEPS):
        if node.op_type == "Cast":
            elem_type = node.attribute[0].i
        elif node.op_type == "Reshape":
            shape = tuple(_numbers(constants[node.input[1]], np.int64))
        elif node.op_type == "Mul":
            (step,) = _numbers(constants[node.input[1]], np.float32)
        else:
            break
        value = node.input[0]
        node = producers[value]
    if shape is None:
        sizes = _numbers(constants[node.input[1]], np.int64) if len(node.input) > 1 else node.attribute[0].ints
        shape = (sizes[list(node.output).index(value)],)
    return Member(name, shape, elem_type, step)


def _numbers(tensor: TensorProto, dtype: type[np.generic]) -> list[Any]:
    array = numpy_helper.to_array(tensor)
    if array.dtype != dtype:
        raise ValueError(f"{tensor.name!r} is of the type {array.dtype}")
    return list(array.reshape(-1).tolist())


class _Builder:
    """Nodes and initialisers so far; two constants of the same numbers are one."""

    def __init__(self, prefix: str, opset: int) -> None:
        self.nodes: list[NodeProto] = []
        self.initialisers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._prefix = prefix
        self._opset = opset
        self._count = 0

    def new_name(self) -> str:
        number, name = self._count, ""
        while number or not name:
            number, digit = divmod(number, len(_DIGITS))
            name = _DIGITS[digit] + name
        self._count += 1
        return self._prefix + name

    def payload(self, name: str, array: Array) -> str:
        self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(array), self._prefix + name))
        return self.initialisers[-1].name

    def constant(self, array: Array) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.new_name()
            self.initialisers.append(_shortest(array, self._constants[key]))
        return self._constants[key]

    def sizes(self, *sizes: int) -> str:
        return self.constant(np.array(sizes, np.int64))

    def integer(self, number: int, *shape: int) -> str:
        return self.constant(np.full(shape, number, np.int32))

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: int) -> str:
        output = self.new_name() if output is None else output
        node = helper.make_node(operator, inputs, [output])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
        return output

    def split(self, value: str, sizes: Sequence[int]) -> list[str]:
        """The parts of `value` along its first axis."""
        outputs = [self.new_name() for _ in sizes]
        if self._opset >= _SPLIT_TAKES_SIZES_AS_INPUT:
            self.nodes.append(helper.make_node("Split", [value, self.sizes(*sizes)], outputs))
        else:
            self.nodes.append(helper.make_node("Split", [value], outputs, split=list(sizes)))
        return outputs


def _shortest(array: Array, name: str) -> TensorProto:
    """Integers as varints, which raw bytes are longer than."""
    tensor = numpy_helper.from_array(array, name)
    if array.dtype.kind == "i":
        tensor.ClearField("raw_data")
        field = tensor.int64_data if array.dtype == np.int64 else tensor.int32_data
        field.extend(array.reshape(-1).tolist())
    return tensor


def _sparse_elements(graph: _Builder, payload: Payload) -> str:
    """A column with every element of all sparse tensors, as codes or float16's values in float32."""
    zeros = graph.add("ConstantOfShape", graph.sizes(payload.universe, 1))
    if not payload.count:
        return zeros
    rows, bitmap = graph.split(_bits(graph, payload), [payload.count * payload.row_bits, payload.bitmap_bits])
    rows = graph.add("Cast", graph.add("Reshape", rows, graph.sizes(payload.count, payload.row_bits)), to=TensorProto.FLOAT)
    return graph.add("ScatterElements", zeros, _positions(graph, payload, rows, bitmap), _nonzeros(graph, payload, rows))


def _bits(graph: _Builder, payload: Payload) -> str:
    """A column with every bit of the stream, as booleans: bit j of a byte is set where the byte modulo 2^(j + 1) is 2^j or more.

    Not the parity of byte * 2^-j: with a Mul right behind the Cast, OpenVINO 2026.4 cannot compile the Split.
    """
    stream = graph.add("Cast", graph.payload(STREAM, payload.stream.reshape(-1, 1)), to=TensorProto.FLOAT)
    powers = np.exp2(np.arange(8, dtype=np.float32))
    rest = graph.add("Mod", stream, graph.constant(2 * powers), fmod=1)
    bits = graph.add("Greater", rest, graph.constant(powers - np.float32(0.5)))
    return graph.add("Reshape", bits, graph.sizes(payload.stream.size * 8, 1))


def _positions(graph: _Builder, payload: Payload, rows: str, bitmap: str) -> str:
    """Where the nonzeros are: as many zeros of the bitmap as stand before the i-th one, times 2^low_bits, plus the low bits.

    The zeros counted at each bit are put in an order in which those at ones come first: the i-th one goes to i, the i-th zero to count + i.
    """
    axis, count = graph.integer(0), graph.integer(payload.count, 1)
    ones = graph.add("Cast", bitmap, to=TensorProto.INT32)
    ones_before = graph.add("CumSum", ones, axis, exclusive=1)
    zeros_before = graph.add("CumSum", graph.add("Sub", graph.integer(1), ones), axis, exclusive=1)
    order = graph.add("Where", bitmap, ones_before, graph.add("Add", zeros_before, count))
    sorted_zeros = graph.add("ScatterElements", zeros_before, order, zeros_before)
    high = graph.add("Mul", graph.add("Slice", sorted_zeros, graph.integer(0, 1), count), graph.integer(2**payload.low_bits))
    weights = np.zeros((payload.row_bits, 1), np.float32)
    weights[payload.code_bits :, 0] = np.exp2(np.arange(payload.low_bits))
    low = graph.add("Cast", graph.add("Gemm", rows, graph.constant(weights)), to=TensorProto.INT32)
    return graph.add("Add", high, low)


def _nonzeros(graph: _Builder, payload: Payload, rows: str) -> str:
    if payload.halves is not None:
        return graph.add("Cast", graph.payload(HALVES, payload.halves.reshape(-1, 1)), to=TensorProto.FLOAT)
    weights = np.zeros((payload.row_bits, 1), np.float32)
    weights[: payload.code_bits, 0] = code_weights(payload.code_bits)
    offset = np.array(-(2 ** (payload.code_bits - 1)), np.float32)
    return graph.add("Gemm", rows, graph.constant(weights), graph.constant(offset))


def _finish(graph: _Builder, member: Member, part: str, *, rank: int) -> None:
    """A member from its elements, a column (rank 2) or a vector (rank 1): the last node has the member's name for its output."""
    steps: list[tuple[str, list[str], dict[str, int]]] = []
    if member.step is not None:
        steps.append(("Mul", [graph.constant(np.array(member.step, np.float32))], {}))
    if rank == 2 or len(member.shape) > 1:
        steps.append(("Reshape", [graph.sizes(*member.shape)], {}))
    if member.elem_type != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": member.elem_type}))
    for index, (operator, inputs, attributes) in enumerate(steps):
        output = member.name if index == len(steps) - 1 else None
        part = graph.add(operator, part, *inputs, output=output, **attributes)
