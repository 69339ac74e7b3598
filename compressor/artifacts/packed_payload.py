"""What `model.packed.onnx` holds of its packed tensors: which of them, in how many bits, and the bits. The layout is in packed_onnx."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from compressor.artifacts import elias_fano
from compressor.artifacts.grid import GridTensor
from compressor.graph.content import MAX_RANK, max_sparse_elements
from compressor.graph.tensors import numpy_dtype

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.int8]

# ONNX Runtime folds a tensor of 1,024 MiB and not one of 1,250, holds half a dozen of them at a time, and what it does not fold it computes
# anew in every run.
MAX_UNPACKED_BYTES = 2**29

# Without a zero in ten a tensor is no pruned one: a table of positions, say, whose rounding nobody has asked for.
MAX_DENSITY = 0.9

_Form = Literal["raw", "dense", "sparse"]

_LOW_BITS = range(elias_fano.MIN_LOW_BITS, elias_fano.MAX_LOW_BITS + 1)
_CODE_BITS = range(2, 9)

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)

# Of nodes and constants, as measured: of the decoder, and of a member with and without a Reshape.
_DECODER_BYTES = 1000
_MEMBER_BYTES, _FLAT_MEMBER_BYTES = 85, 45


@dataclass(frozen=True)
class Member:
    """A packed tensor.

    Attributes:
        name: its ONNX name.
        shape: its dense shape, of rank 1 or more.
        elem_type: TensorProto.FLOAT, FLOAT16 or DOUBLE.
        step: what its codes are times; None for values that are float16.
    """

    name: str
    shape: tuple[int, ...]
    elem_type: int
    step: float | None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Payload:
    """All that a file says about its packed tensors.

    Attributes:
        sparse: the tensors of which only nonzeros are stored, in the order in which they follow each other.
        dense: those with a code for every element.
        count: nonzeros of all sparse tensors.
        low_bits: of a position, as elias_fano has them; 0 where count is.
        code_bits: of a nonzero, 2 to 8; 0 where the nonzeros are `halves`, or there are none.
        stream: uint8 [bytes]: a row of code_bits + low_bits bits for each nonzero, then the bitmap; the first bit of a byte is its lowest.
        halves: float16 [count], or None.
        codes: int8 [elements of all dense tensors].
    """

    sparse: tuple[Member, ...]
    dense: tuple[Member, ...]
    count: int
    low_bits: int
    code_bits: int
    stream: npt.NDArray[np.uint8]
    halves: npt.NDArray[np.float16] | None
    codes: Codes

    @property
    def row_bits(self) -> int:
        return self.code_bits + self.low_bits

    @property
    def bitmap_bits(self) -> int:
        return self.stream.size * 8 - self.count * self.row_bits

    @property
    def universe(self) -> int:
        return sum(member.numel for member in self.sparse)

    def excess(self) -> str | None:
        """What is too large to be unpacked as the file is loaded, or None."""
        members = (*self.sparse, *self.dense)
        unpacked = [member.numel * (8 if member.elem_type == TensorProto.DOUBLE else 4) for member in members]
        largest = max([4 * self.universe, 4 * 8 * self.stream.size, *unpacked])
        if largest >= MAX_UNPACKED_BYTES:
            return f"{largest:,} bytes in one tensor; at most {MAX_UNPACKED_BYTES - 1:,} are unpacked"
        limit = max_sparse_elements(self.count)
        if self.universe > limit:
            return f"{self.universe:,} elements with {self.count:,} nonzeros; at most {limit:,} are unpacked"
        return None


EMPTY = Payload((), (), 0, 0, 0, np.zeros(0, np.uint8), None, np.zeros(0, np.int8))


def code_weights(code_bits: int) -> npt.NDArray[np.float32]:
    """What each bit of a code adds: the code is their sum minus 2^(code_bits - 1), and never 0.

    The highest bit adds one more than its due, which leaves a gap where 0 would be: -2 -1 1 2 for two bits.
    """
    weights = np.exp2(np.arange(code_bits, dtype=np.float32))
    weights[-1:] += 1
    return weights


def pack_grids(arrays: Mapping[str, Array], grids: Mapping[str, GridTensor]) -> Payload:
    """The payload of those tensors of `grids` that it makes smaller.

    Args:
        arrays: the float tensors of the model, by name.
        grids: codes and step of those that are quantised.
    """
    taken = {name: grid for name, grid in grids.items() if name in arrays and _can_be_packed(arrays[name])}
    candidates = [_Candidate.of(name, arrays[name], grid) for name, grid in taken.items()]
    code_bits, sparse, dense = _smallest(candidates, _CODE_BITS)
    codes = [taken[member.name].codes.reshape(-1) for member in dense]
    positions, nonzeros = _nonzeros([taken[member.name].codes for member in sparse], np.int8)
    low_bits, stream = _to_stream(positions, sum(member.numel for member in sparse), _to_bits(nonzeros, code_bits))
    stored = np.concatenate(codes) if codes else EMPTY.codes
    return Payload(sparse, dense, len(positions), low_bits, code_bits if len(positions) else 0, stream, None, stored)


def pack_halves(arrays: Mapping[str, Array]) -> Payload:
    """The payload, with values in float16, of the sparse matrices and kernels among `arrays` that it makes smaller.

    Args:   arrays: the float tensors of the model, by name.
    """
    candidates = [_Candidate.of(name, array, None) for name, array in arrays.items() if _can_be_halves(array)]
    _, sparse, _ = _smallest(candidates, [16])
    positions, halves = _nonzeros([arrays[member.name] for member in sparse], np.float16)
    low_bits, stream = _to_stream(positions, sum(member.numel for member in sparse), np.empty((len(positions), 0), np.uint8))
    return Payload(sparse, (), len(positions), low_bits, 0, stream, halves if len(halves) else None, EMPTY.codes)


def to_halves(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays, those rounded that `pack_halves` may round."""
    return {name: array.astype(np.float16).astype(array.dtype) if _can_be_halves(array) else array for name, array in arrays.items()}


def check(payload: Payload) -> None:
    """Looks at all numbers that the size of something follows from.

    Raises: ValueError.
    """
    members = (*payload.sparse, *payload.dense)
    for member in members:
        if not 1 <= len(member.shape) <= MAX_RANK or min(member.shape) < 1 or member.elem_type not in _FLOATS:
            raise ValueError(f"{member.name!r} has no shape or type of a packed tensor")
        if member.step is not None and not 0 < member.step < math.inf:
            raise ValueError(f"{member.name!r} has a step of {member.step}")
    has_halves = payload.halves is not None
    if any(member.step is None for member in payload.dense) or (
        payload.count and any((member.step is None) != has_halves for member in payload.sparse)
    ):
        raise ValueError("a step is missing, or one too many")
    if len({member.name for member in members}) != len(members):
        raise ValueError("two tensors have the same name")
    excess = payload.excess()
    if excess is not None:
        raise ValueError(excess)
    if payload.code_bits not in (_CODE_BITS if payload.count and not has_halves else (0,)):
        raise ValueError(f"codes of {payload.code_bits} bits")
    if payload.low_bits not in (_LOW_BITS if payload.count else (0,)) or payload.bitmap_bits < payload.count:
        raise ValueError(f"positions with {payload.low_bits} low bits in {payload.stream.size} bytes")
    if payload.halves is not None and payload.halves.shape != (payload.count,):
        raise ValueError("values that are not as many as the nonzeros")
    if payload.codes.shape != (sum(member.numel for member in payload.dense),):
        raise ValueError("codes that are not as many as the elements")


def unpack(payload: Payload) -> Iterator[tuple[Member, Array]]:
    """The packed tensors, one by one, each with its dense array in its own type.

    Args:   payload: one that has passed `check`.
    Raises: ValueError where bits are no positions, or a value is not finite.
    """
    yield from _products(payload.sparse, _sparse_elements(payload))
    yield from _products(payload.dense, payload.codes)


@dataclass(frozen=True)
class _Candidate:
    member: Member
    raw_bytes: int
    count: int
    bits: int  # that a nonzero takes at least

    @classmethod
    def of(cls, name: str, array: Array, grid: GridTensor | None) -> "_Candidate":
        member = Member(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype), None if grid is None else grid.step)
        count = int(np.count_nonzero(array if grid is None else grid.codes))
        return cls(member, array.nbytes, count, 16 if grid is None else grid.bits)

    def sizes_bits(self, value_bits: int, low_bits: int) -> dict[_Form, float]:
        """What it takes in each form, with so many bits for a nonzero and for the low part of its position."""
        numel, own_bits = self.member.numel, 8 * (_FLAT_MEMBER_BYTES if len(self.member.shape) == 1 else _MEMBER_BYTES)
        positions = elias_fano.size_bits(self.count, numel, low_bits)
        return {
            "raw": 8 * self.raw_bytes,
            "dense": math.inf if self.member.step is None else own_bits + 8 * numel,
            "sparse": 8 * _MEMBER_BYTES + self.count * value_bits + positions if self.bits <= value_bits else math.inf,
        }


@dataclass(frozen=True)
class _Plan:
    value_bits: int
    size_bits: float
    sparse: tuple[Member, ...]
    dense: tuple[Member, ...]


def _can_be_packed(array: Array) -> bool:
    return array.ndim > 0 and array.size > 0 and array.dtype.kind == "f"  # numpy has bfloat16 as another kind


def _can_be_halves(array: Array) -> bool:
    if array.ndim < 2 or not _can_be_packed(array) or np.count_nonzero(array) > MAX_DENSITY * array.size:
        return False
    with np.errstate(over="ignore"):
        return bool(np.array_equal(np.isfinite(array), np.isfinite(array.astype(np.float16))))


def _smallest(candidates: Sequence[_Candidate], value_bits: Sequence[int]) -> tuple[int, tuple[Member, ...], tuple[Member, ...]]:
    """The bits of a nonzero, the sparse and the dense members with which the file is smallest; all others stay as they are."""
    plans = [_plan(candidates, bits, low_bits) for bits, low_bits in product(value_bits, _LOW_BITS)]
    # With 0 bits for a nonzero no tensor can be sparse, and the file needs no decoder.
    best = min([_plan(candidates, 0, 1), *plans], key=lambda plan: plan.size_bits)
    return best.value_bits, best.sparse, best.dense


def _plan(candidates: Sequence[_Candidate], value_bits: int, low_bits: int) -> _Plan:
    total: float = 0
    members: dict[_Form, list[Member]] = {"raw": [], "dense": [], "sparse": []}
    for candidate in candidates:
        sizes = candidate.sizes_bits(value_bits, low_bits)
        form = min(sizes, key=sizes.__getitem__)
        members[form].append(candidate.member)
        total += sizes[form]
    decoder = 8 * _DECODER_BYTES if members["sparse"] else 0
    return _Plan(value_bits, total + decoder, tuple(members["sparse"]), tuple(members["dense"]))


def _nonzeros(arrays: Sequence[Array], dtype: type[np.generic]) -> tuple[elias_fano.Positions, Array]:
    """Where the nonzeros of all arrays are, one array behind the other, and what they are."""
    positions, values, offset = [np.zeros(0, np.int64)], [np.zeros(0, dtype)], 0
    for array in arrays:
        flat = array.reshape(-1)
        positions.append(np.flatnonzero(flat))
        values.append(flat[positions[-1]].astype(dtype))
        positions[-1] += offset
        offset += flat.size
    return np.concatenate(positions), np.concatenate(values)


def _to_bits(codes: Codes, code_bits: int) -> elias_fano.Bits:
    """[count, code_bits], the lowest bit first: -L to -1 and 1 to L as 0 to 2 L - 1."""
    numbers = codes.astype(np.int16) + 2 ** max(code_bits - 1, 0) - (codes > 0)
    bits = np.empty((len(codes), code_bits), np.uint8)
    for bit in range(code_bits):
        bits[:, bit] = (numbers >> bit) & 1
    return bits


def _to_stream(positions: elias_fano.Positions, universe: int, codes: elias_fano.Bits) -> tuple[int, npt.NDArray[np.uint8]]:
    if not len(positions):
        return 0, EMPTY.stream
    low_bits = elias_fano.best_low_bits(len(positions), universe)
    low, bitmap = elias_fano.encode(positions, low_bits)
    bits = np.concatenate([np.concatenate([codes, low], axis=1).reshape(-1), bitmap])
    return low_bits, np.packbits(bits, bitorder="little")


def _sparse_elements(payload: Payload) -> npt.NDArray[np.float32]:
    """Every element of all sparse tensors: codes, or values, in float32 as the graph has them."""
    flat = np.zeros(payload.universe, np.float32)
    if not payload.count:
        return flat
    bits = np.unpackbits(payload.stream, bitorder="little")
    rows = bits[: payload.count * payload.row_bits].reshape(payload.count, payload.row_bits)
    bitmap = bits[rows.size :]
    if not bitmap[-8:].any():
        raise ValueError("zeros at the end")
    positions = elias_fano.decode(rows[:, payload.code_bits :], bitmap)
    if positions[-1] >= payload.universe:
        raise ValueError("positions beyond the tensors")
    if payload.halves is not None:
        flat[positions] = payload.halves
    else:
        codes = np.full(payload.count, -(2.0 ** (payload.code_bits - 1)), np.float32)
        for bit, weight in enumerate(code_weights(payload.code_bits)):
            codes += rows[:, bit] * weight
        flat[positions] = codes
    return flat


def _products(members: Sequence[Member], elements: Array) -> Iterator[tuple[Member, Array]]:
    start = 0
    for member in members:
        part = elements[start : start + member.numel].reshape(member.shape)
        start += member.numel
        with np.errstate(over="ignore"):
            values = part if member.step is None else part.astype(np.float32) * np.float32(member.step)
            values = values.astype(numpy_dtype(member.elem_type))
        if member.step is not None and not np.isfinite(values).all():
            raise ValueError(f"{member.name!r} holds values that are not finite")
        yield member, values
