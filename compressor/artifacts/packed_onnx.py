"""`model.packed.onnx`: the smallest ONNX file that stock ONNX Runtime loads. The layout, format_version 1:

An ONNX model: the client's own graph, and before its nodes a decoder of standard operators (packed_graph) that computes some of its float
tensors, the packed ones, which are initialisers or Constant nodes no longer. ONNX Runtime does so once, as it loads the file. All names of
the decoder start with a prefix, one or more "_", with which no name of the client's graph starts; the packed tensors keep their own.

Its metadata_props have an entry "bayespress_packed", whose value is eight fields, or nine, with a space between them:
    1                format_version
    prefix
    count            of the nonzeros of all sparse tensors
    low_bits         of a position, 1 to 23; 0 where count is
    code_bits        of a nonzero, 2 to 8; 0 where the nonzeros are float16, or count is 0
    sparse, dense    how many packed tensors there are of either kind; their names are the outputs of the decoder without the prefix, in
                     the order of its nodes, the sparse ones first
    sparse_prefix    only where tensors of opset 11 or 12 are sparse, and not packed: the prefix of their nodes, as in model.onnx
    digest           the first 32 hexadecimal digits of the SHA-256 of the model without this entry, serialised with its fields in the
                     order of their numbers, as protobuf does

Up to three initialisers hold the numbers:
    <prefix>S  uint8 [bytes, 1], of bits, the lowest bit of a byte first: for each nonzero a row of code_bits and then low_bits bits, the
               lowest first, and behind the rows a bitmap, which ends in the last byte with a one. The i-th nonzero (from 0) is where the
               i-th one of the bitmap says, at (zeros before it) * 2^low_bits + its low bits, in the elements of all sparse tensors,
               row-major and one tensor behind the other. Its code, with L = 2^(code_bits - 1), is its code bits' number n minus L, and
               one more from n = L on: -L to -1 and 1 to L.
    <prefix>V  float16 [count, 1], where the nonzeros are such: the i-th value.
    <prefix>C  int8 [elements]: the codes of the dense packed tensors, one tensor behind the other.
A tensor is its codes times its step, or its float16 values, in float32, and then cast to its own type. Its last nodes say which step,
shape and type: a Mul by the step where it has codes, a Reshape to the shape unless it is a dense one of rank 1, whose size is that of its
part in the Split before, and a Cast where it is not float32. An absent initialiser holds nothing.

All other tensors are as in model.onnx: those that would get no smaller, and the weights and biases of LSTM, GRU and RNN nodes, which
OpenVINO takes from constants alone. A file without packed tensors, where the decoder takes more than it saves, has count 0 and no decoder.
`read` gives all float tensors, `unpack` the model with plain initialisers in place of packed tensors and of nodes of the second form.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from compressor.artifacts import packed_payload, scattered, sparse_onnx
from compressor.artifacts.digest import break_seal, check_seal, seal
from compressor.artifacts.grid import GridTensor
from compressor.artifacts.packed_graph import CODES, HALVES, STREAM, decoder, read_members
from compressor.artifacts.packed_payload import EMPTY, Payload
from compressor.atomic import replacing
from compressor.config import MAX_OPSET, MIN_OPSET
from compressor.errors import CannotPack, InvalidArtifact, ModelError
from compressor.graph.names import free_prefix
from compressor.graph.reader import opset_of
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors, write_arrays

METADATA_KEY = "bayespress_packed"

Array = npt.NDArray[Any]

_FIELDS = re.compile(r"1 (_+) (\d{1,10}) (\d{1,2}) (\d) (\d{1,5}) (\d{1,5})(?: (_+))?", re.ASCII)
_RECURRENT, _WEIGHTS_AND_BIAS = ("LSTM", "GRU", "RNN"), slice(1, 4)
# Before this version every initialiser had to be an input of the graph, too.
_IR_WITH_PLAIN_INITIALISERS = 4


def write(path: Path, model: ModelProto, grids: Mapping[str, GridTensor] | None) -> None:
    """Writes `model` with its float tensors packed, or as sparse constants, each where that takes fewer bytes.

    Args:
        path: the file; it is replaced as a whole or not at all.
        model: from parse_model, with the delivered tensors; not changed.
        grids: the quantised tensors, by ONNX name, which are written as they are here; the others stay as they are. None: the values of
            matrices and kernels with zeros are rounded to float16 where they are packed, the other tensors stay as they are.
    Raises:
        CannotPack: the opset is not one of 11 to 23, or something is too large to be unpacked as the file is loaded.
        KeyError: a name in `grids` that the model does not have.
        ValueError: a grid of another shape.
        ArtifactMismatch: a product that the tensor's type cannot hold.
        onnx.checker.ValidationError where the result is not a valid model, which would be a fault of ours.
    """
    packed = pack(model, grids)
    onnx.checker.check_model(packed, full_check=True)
    with replacing(path) as partial:
        partial.write_bytes(packed.SerializeToString())


def pack(model: ModelProto, grids: Mapping[str, GridTensor] | None) -> ModelProto:
    """The model that `write` writes.

    Raises: as `write`, but no ValidationError.
    """
    _check_opset(model)
    plain = write_arrays(model, {name: grid.values() for name, grid in (grids or {}).items()})
    constants = _constants_of_recurrent(plain)
    arrays = {name: array for name, array in float_tensors(plain).items() if name not in constants}
    payload = packed_payload.pack_halves(arrays) if grids is None else packed_payload.pack_grids(arrays, grids)
    excess = payload.excess()
    if excess is not None:
        raise _cannot(excess, "model")
    others = float_tensors(plain).keys() - {member.name for member in (*payload.sparse, *payload.dense)}
    packed = _with_decoder(plain, sparse_onnx.to_sparse(plain, others), payload)
    unpacked = _with_decoder(plain, sparse_onnx.to_sparse(plain), EMPTY)
    return packed if packed.ByteSize() < unpacked.ByteSize() else unpacked


def read(path: Path) -> dict[str, Array]:
    """All float tensors of rank 1 or more of a file, as dense arrays by name, whether packed or not.

    Raises: InvalidArtifact where the file is damaged or not of this format.
    """
    return float_tensors(unpack(path))


def unpack(source: Path | ModelProto) -> ModelProto:
    """The plain model: without the decoder, and with its tensors as dense initialisers. Neither ONNX Runtime nor the decoder is run.

    Args:   source: the file, or the model in it, which is not changed.
    Raises: InvalidArtifact where it is damaged or not of this format.
    """
    name = source.name if isinstance(source, Path) else "model"
    try:
        model = parse_model(source.read_bytes() if isinstance(source, Path) else source.SerializeToString())
        prefix, sparse_prefix, payload = _read_payload(model)
        packed_payload.check(payload)
        nodes, initialisers = decoder(payload, prefix, opset_of(model))
        _check_decoder(model, prefix, nodes, initialisers)
        tensors = [numpy_helper.from_array(array, member.name) for member, array in packed_payload.unpack(payload)]
        _replace(model, model.graph.node[len(nodes) :], _without(model.graph.initializer, {tensor.name for tensor in initialisers}))
        model.graph.initializer.extend(tensors)
        if sparse_prefix:
            scattered.materialise(model, sparse_prefix)
    except (ModelError, ValueError, KeyError, IndexError, OSError) as error:
        raise InvalidArtifact(
            f"{name}: not a readable packed model ({error}).", param=name, suggestion="Download the artifact again."
        ) from error
    return model


def _check_opset(model: ModelProto) -> None:
    opset = opset_of(model)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise _cannot(f"opset {opset}; the operators that unpack it are those of {MIN_OPSET} to {MAX_OPSET}", "opset_import")


def _constants_of_recurrent(model: ModelProto) -> set[str]:
    """Names of whatever the weights and biases of recurrent nodes are computed from."""
    nodes = model.graph.node
    producers = {name: node for node in nodes for name in node.output}
    found: set[str] = set()
    open_names = [name for node in nodes if node.op_type in _RECURRENT for name in node.input[_WEIGHTS_AND_BIAS]]
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names += producers[name].input if name in producers else ()
    return found


def _cannot(why: str, param: str) -> CannotPack:
    return CannotPack(
        f"The model has {why}.", param=param, suggestion="Take model.onnx: its sparse tensors are constants, which nothing has to unpack."
    )


def _with_decoder(plain: ModelProto, sparse: ModelProto, payload: Payload) -> ModelProto:
    """A copy of `sparse`, which was made of `plain`, in which the decoder of `payload` stands for the packed tensors."""
    result = ModelProto()
    result.CopyFrom(sparse)
    break_seal(result, METADATA_KEY)
    if result.ir_version < _IR_WITH_PLAIN_INITIALISERS:
        result.ir_version = _IR_WITH_PLAIN_INITIALISERS
        _drop_inputs(result, {tensor.name for tensor in result.graph.initializer})
    packed = {member.name for member in (*payload.sparse, *payload.dense)}
    _drop_inputs(result, packed)
    prefix = free_prefix(result)
    nodes, initialisers = decoder(payload, prefix, opset_of(result))
    kept = [node for node in result.graph.node if node.op_type != "Constant" or node.output[0] not in packed]
    _replace(result, [*nodes, *kept], [*_without(result.graph.initializer, packed), *initialisers])
    numbers = map(str, (payload.count, payload.low_bits, payload.code_bits, len(payload.sparse), len(payload.dense)))
    seal(result, METADATA_KEY, "1", prefix, *numbers, *filter(None, [scattered.prefix_of(plain, sparse)]))
    return result


def _drop_inputs(model: ModelProto, names: set[str]) -> None:
    for info in [info for info in model.graph.input if info.name in names]:
        model.graph.input.remove(info)


def _without(tensors: Iterable[TensorProto], names: set[str]) -> list[TensorProto]:
    return [tensor for tensor in tensors if tensor.name not in names]


def _replace(model: ModelProto, nodes: Iterable[NodeProto], initialisers: Iterable[TensorProto]) -> None:
    nodes, initialisers = list(nodes), list(initialisers)
    del model.graph.node[:]
    del model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initialisers)


def _read_payload(model: ModelProto) -> tuple[str, str | None, Payload]:
    """The decoder's prefix, that of sparse tensors, and what is packed."""
    match = _FIELDS.fullmatch(check_seal(model, METADATA_KEY))
    if match is None:
        raise ValueError(f"its {METADATA_KEY} is not of format_version 1")
    prefix = match[1]
    count, low_bits, code_bits, sparse, dense = (int(number) for number in match.groups()[1:6])
    members = tuple(read_members(model.graph, prefix))
    if len(members) != sparse + dense:
        raise ValueError(f"{len(members)} packed tensors instead of {sparse + dense}")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    stream = _numbers(stored.get(prefix + STREAM), EMPTY.stream.dtype)
    halves = _numbers(stored.get(prefix + HALVES), np.dtype(np.float16))
    codes = _numbers(stored.get(prefix + CODES), EMPTY.codes.dtype)
    payload = Payload(
        members[:sparse],
        members[sparse:],
        count,
        low_bits,
        code_bits,
        EMPTY.stream if stream is None else stream,
        halves,
        EMPTY.codes if codes is None else codes,
    )
    return prefix, match[7], payload


def _numbers(tensor: TensorProto | None, dtype: np.dtype[Any]) -> Array | None:
    if tensor is None:
        return None
    array = numpy_helper.to_array(tensor).reshape(-1)
    if array.dtype != dtype:
        raise ValueError(f"{tensor.name!r} is of the type {array.dtype}, not {dtype}")
    return array


def _check_decoder(model: ModelProto, prefix: str, nodes: list[NodeProto], initialisers: list[TensorProto]) -> None:
    """The file's decoder is the one that `write` makes for this payload: what ONNX Runtime computes is what is read here."""
    graph = model.graph
    theirs = [tensor for tensor in graph.initializer if tensor.name.startswith(prefix)]
    rest = graph.node[len(nodes) :]
    names = {name for node in rest for name in (*node.input, *node.output)} | {info.name for info in (*graph.input, *graph.output)}
    if list(graph.node[: len(nodes)]) != nodes or theirs != initialisers or any(name.startswith(prefix) for name in names):
        raise ValueError("its decoder is another")
