"""`model.bp`: a quantised model in the fewest bytes, for storing and sending; `read` and `bayespress unpack` make plain ONNX of it.

The layout, format_version 1. Integers are little-endian.

  offset  bytes  content
       0      4  8F 42 50 01: the letters BP between a byte that no text begins with and the version
       4      4  CRC-32 (that of zip) of everything from offset 8 on
       8     32  SHA-256 of the ONNX file that comes out
      40      4  n, the size of the skeleton
      44      n  the skeleton: raw DEFLATE (RFC 1951), with the dictionary of bp_dictionary.py set beforehand
    44+n         32-bit words of the weights

The skeleton is the ONNX file, a serialised ModelProto, in which some TensorProto of one or more elements hold no numbers at all: neither
`raw_data` nor one of the typed fields. These are the coded tensors, in the order of the initialisers and then of the nodes of type
Constant (attribute `value`), all of the main graph. Each gets its numbers as `raw_data`, which is then the only field to hold any; the
model, serialised with its fields in the order of their numbers, is the ONNX file.

The words are those of the range coder of the library constriction (0.4 or 0.5; DefaultRangeEncoder: 32-bit words, 64-bit state, 24-bit
probabilities). It keeps two 64-bit numbers, range = 2^64 - 1 and lower = 0, and reading a third, point, the first two words, the first one
in the upper half; words beyond the end are 0. For a bit with the chance c, an integer from 1 to 2^20 - 1 that stands for the probability
c / 2^20 of a 1:
  zero  = floor((2^20 - c) * (2^24 - 2) / 2^20) + 1; scale = floor(range / 2^24)
  the bit is 1 where floor((point - lower) / scale) >= zero
  0: range = scale * zero
  1: lower = lower + scale * zero, range = scale * (2^24 - zero)
  then, where range < 2^32: range, lower and point are multiplied by 2^32, and the next word is added to point
all modulo 2^64. (In the first line, the quotient is 2^24 - 1 where it is larger.)

Of each coded tensor, in order, with E the number of its elements, in bits with the following chances:
  1. Its step: the upper 16 bits of a float32, highest first, each with 2^19.
  2. The number of its nonzeros: as many bits as E has in binary, highest first, each with 2^19.
  3. Where they are. A tensor of one dimension is a matrix of one row; of any other, the rows are the first dimension and the columns the
     rest, or the other way round where that is fewer rows. Rows one after the other, each in segments of max(32, ceil(columns / 32))
     elements, the last one shorter. A bit is 1 where there is a nonzero. Its chance is computed in IEEE 754 double precision:
       density  = nonzeros still to come / elements still to come, at the start of the segment, no less than 2^-20, no more than 1 - 2^-20
       column   = (nonzeros found in this column + 1) / (expected in this column + 1)
       row      = (nonzeros found in this row before the segment + 1) / (expected in this row + 1)
       odds     = density / (1 - density) * row * column, from left to right
       chance   = floor(odds / (1 + odds) * 2^20), no less than 1, no more than 2^20 - 1
     After a segment, density * row is added to what is expected in each of its columns, and to what is expected in the row the sum over
     the segment of floor(min(density * column, 1) * 2^20), divided by 2^20.
  4. Of the nonzeros, in the order of 3, the signs, as flags: 1 is negative.
  5. Of the nonzeros, for s = 1, 2, ... 126, of those whose size is at least s, flags: 1 where it is larger than s; until there are none.
Flags come in blocks, each of a quarter of the number of flags of this group before it, rounded down, at least 1; their chance is
floor((2 * ones + 1) * 2^20 / (2 * count + 2)) by ones and count before the block, no less than 1, no more than 2^20 - 1.
An element is its signed size times the step as a float32, in the tensor's own type.

So that a few bytes do not become gigabytes: the skeleton has at most 2^26 bytes and 64 for each of its n; there are at most 40,000 coded
tensors, which have together at most 2^24 elements and 128 for each byte of the file; the ONNX file has less than 2^31 bytes.
"""

import hashlib
import math
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from compressor.artifacts.bp_dictionary import DICTIONARY
from compressor.artifacts.grid import GridTensor
from compressor.artifacts.range_coding import Coder, Reader, Writer, code_integer, code_numbers, code_pattern
from compressor.atomic import replacing
from compressor.errors import CannotPack, InvalidArtifact, ModelError
from compressor.graph.reader import ONNX_DOMAINS
from compressor.graph.tensors import FLOAT_TYPES, numpy_dtype
from compressor.graph.validate import MAX_INITIALISERS, MAX_NODES
from compressor.graph.wire import check_wire
from compressor.graph.write import float_tensors

Array = npt.NDArray[Any]

MAGIC = b"\x8fBP\x01"
_HEADER = struct.Struct("<32sI")
_MAX_BYTES = 2**31 - 1  # what protobuf parses
_MAX_TENSORS = MAX_INITIALISERS + MAX_NODES
_TYPED = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data", "external_data")


def write(path: Path, model: ModelProto, grids: Mapping[str, GridTensor]) -> None:
    """Writes `model` with `grids` in place of its tensors.

    Args:
        path: the file; it is replaced as a whole or not at all.
        model: a model without sparse tensors; it stays as it is.
        grids: by ONNX name, float tensors of the model's own shapes.
    Raises:
        CannotPack: so much in so few bytes that no reader would take it.
        KeyError: a tensor that the model does not have.
    """
    skeleton = ModelProto()
    skeleton.CopyFrom(model)
    places = {name: tensor for name, tensor in _float_places(skeleton) if name in grids}
    if missing := grids.keys() - places.keys():
        raise KeyError(f"not a float tensor of the model: {sorted(missing)}")
    coder = Writer()
    for name, tensor in places.items():
        _clear(tensor)
        _code_tensor(coder, grids[name], tensor)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=DICTIONARY)
    serialised = _serialise(skeleton)
    packed, words = deflate.compress(serialised) + deflate.flush(), coder.to_bytes()
    _check_excess(places.values(), len(serialised), len(packed), 8 + _HEADER.size + len(packed) + len(words))
    for name, tensor in places.items():
        tensor.raw_data = _raw(grids[name], tensor)
    content = _HEADER.pack(hashlib.sha256(_serialise(skeleton)).digest(), len(packed)) + packed + words
    with replacing(path) as partial:
        partial.write_bytes(MAGIC + struct.pack("<I", zlib.crc32(content)) + content)


def unpack(path: Path) -> bytes:
    """The ONNX file.

    Raises: InvalidArtifact where the file is damaged or not of this format.
    """
    try:
        return _decode(path.read_bytes())
    except (DecodeError, ModelError, CannotPack, ValueError, struct.error, zlib.error, AssertionError) as error:
        raise InvalidArtifact(
            f"{path.name}: not a readable packed model ({error}).", param=path.name, suggestion="Download the artifact again."
        ) from error


def read(path: Path) -> dict[str, Array]:
    """All float tensors of rank 1 or more, dense, by ONNX name.

    Raises: InvalidArtifact where the file is damaged or not of this format.
    """
    return float_tensors(ModelProto.FromString(unpack(path)))


def _decode(data: bytes) -> bytes:
    if data[:4] != MAGIC:
        raise ValueError("it does not begin as one")
    if zlib.crc32(data[8:]) != struct.unpack_from("<I", data, 4)[0]:
        raise ValueError("its checksum is another")
    digest, size = _HEADER.unpack_from(data, 8)
    start = 8 + _HEADER.size
    if start + size > len(data) or (len(data) - start - size) % 4:
        raise ValueError("it ends too early")
    inflate = zlib.decompressobj(-15, zdict=DICTIONARY)
    skeleton = inflate.decompress(data[start : start + size], _max_skeleton(size))
    if not inflate.eof:
        raise ValueError("its skeleton ends too early, or is too large")
    check_wire(memoryview(skeleton))
    model = ModelProto.FromString(skeleton)
    coded = [tensor for _, tensor in _float_places(model) if _is_empty(tensor)]
    _check_excess(coded, len(skeleton), size, len(data))
    coder = Reader(data[start + size :])
    for tensor in coded:
        tensor.raw_data = _raw(_code_tensor(coder, None, tensor), tensor)
    result = _serialise(model)
    if hashlib.sha256(result).digest() != digest:
        raise ValueError("what comes out is not what went in")
    return result


def _float_places(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """The dense float tensors of at least one dimension, by name."""
    for tensor in model.graph.initializer:
        if tensor.dims and tensor.data_type in FLOAT_TYPES:
            yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ONNX_DOMAINS:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.dims and attribute.t.data_type in FLOAT_TYPES:
                    yield node.output[0], attribute.t


def _is_empty(tensor: TensorProto) -> bool:
    return 0 not in tensor.dims and not tensor.raw_data and not any(len(getattr(tensor, field)) for field in _TYPED)


def _clear(tensor: TensorProto) -> None:
    for field in ("raw_data", *_TYPED):
        tensor.ClearField(field)


def _max_skeleton(packed: int) -> int:
    return 2**26 + 64 * packed


def _check_excess(coded: Collection[TensorProto], skeleton: int, packed: int, file: int) -> None:
    """Before anything is made of them. Args: bytes of the skeleton, of what it is packed into, and of the whole file.

    Raises: CannotPack.
    """
    elements = total = 0
    for tensor in coded:
        if min(tensor.dims) < 1:
            raise ValueError("a tensor has no elements")
        elements += math.prod(tensor.dims)
        total += math.prod(tensor.dims) * numpy_dtype(tensor.data_type).itemsize
    for what, count, limit in (
        ("tensors", len(coded), _MAX_TENSORS),
        ("bytes in its graph", skeleton, _max_skeleton(packed)),
        (f"elements in {file:,} bytes", elements, 2**24 + 128 * file),
        ("bytes", skeleton + total, _MAX_BYTES),
    ):
        if count > limit:
            raise CannotPack(
                f"The model has {count:,} {what}; at most {limit:,} are unpacked.", param="model", suggestion="Take model.onnx."
            )


def _code_tensor(coder: Coder, grid: GridTensor | None, tensor: TensorProto) -> GridTensor:
    """Writes `grid`, or reads it where it is None; `tensor` says its shape."""
    shape = tuple(tensor.dims)
    codes = None if grid is None else _matrix(grid.codes)
    rows, cols = _matrix(np.empty(shape, np.bool_)).shape if codes is None else codes.shape
    upper = code_integer(coder, None if grid is None else int(np.float32(grid.step).view(np.uint32)) >> 16, 16)
    step = float(np.uint32(upper << 16).view(np.float32))
    pattern = code_pattern(coder, None if codes is None else codes != 0, (rows, cols))
    numbers = code_numbers(coder, None if codes is None else codes[codes != 0], int(np.count_nonzero(pattern)))
    found = np.zeros(shape, np.int8)
    _matrix(found)[pattern] = numbers
    if not np.isfinite(step) or step <= 0:
        raise ValueError("a step is not positive and finite")
    return GridTensor(found, step)


def _matrix(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view as a matrix of no more rows than columns."""
    matrix = array.reshape(1 if array.ndim == 1 else len(array), -1)
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _raw(grid: GridTensor, tensor: TensorProto) -> bytes:
    values = grid.values().astype(numpy_dtype(tensor.data_type))
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _serialise(model: ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))
