"""A reader of `model.bp` written from its layout page alone, in plain integers and floats: of ours it has only the dictionary."""

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator

from onnx import ModelProto, TensorProto

from compressor.artifacts.bp_dictionary import DICTIONARY

ALL = 2**64 - 1


class Bits:
    def __init__(self, words: list[int]) -> None:
        self.words = iter(words)
        self.range, self.lower = ALL, 0
        self.point = next(self.words, 0) << 32 | next(self.words, 0)

    def next(self, chance: int) -> int:
        zero = (2**20 - chance) * (2**24 - 2) // 2**20 + 1
        scale = self.range >> 24
        bit = int(min(((self.point - self.lower) & ALL) // scale, 2**24 - 1) >= zero)
        if bit:
            self.lower = (self.lower + scale * zero) & ALL
            self.range = scale * (2**24 - zero)
        else:
            self.range = scale * zero
        if self.range < 2**32:
            self.range <<= 32
            self.lower = self.lower << 32 & ALL
            self.point = (self.point << 32 | next(self.words, 0)) & ALL
        return bit

    def integer(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = value << 1 | self.next(2**19)
        return value

    def flags(self, count: int) -> list[int]:
        found: list[int] = []
        while len(found) < count:
            chance = (2 * sum(found) + 1) * 2**20 // (2 * len(found) + 2)
            block = max(1, len(found) // 4)
            found += [self.next(min(max(chance, 1), 2**20 - 1)) for _ in range(min(block, count - len(found)))]
        return found


def pattern(bits: Bits, rows: int, cols: int) -> list[tuple[int, int]]:
    left, rest = bits.integer((rows * cols).bit_length()), rows * cols
    width = max(32, math.ceil(cols / 32))
    column_found, column_expected = [0] * cols, [0.0] * cols
    places = []
    for row in range(rows):
        row_found, row_expected = 0, 0.0
        for start in range(0, cols, width):
            segment = range(start, min(cols, start + width))
            density = min(max(left / rest, 2**-20), 1 - 2**-20)
            row_factor = (row_found + 1) / (row_expected + 1)
            in_segment, expected = 0, 0
            for col in segment:
                column_factor = (column_found[col] + 1) / (column_expected[col] + 1)
                odds = density / (1 - density) * row_factor * column_factor
                expected += math.floor(min(density * column_factor, 1) * 2**20)
                if bits.next(min(max(math.floor(odds / (1 + odds) * 2**20), 1), 2**20 - 1)):
                    places.append((row, col))
                    column_found[col] += 1
                    in_segment += 1
                column_expected[col] += density * row_factor
            row_found, row_expected = row_found + in_segment, row_expected + expected / 2**20
            left, rest = left - in_segment, rest - len(segment)
    return places


def numbers(bits: Bits, count: int) -> list[int]:
    signs = bits.flags(count)
    sizes = [1] * count
    reached = list(range(count))
    for _ in range(126):
        reached = [number for number, flag in zip(reached, bits.flags(len(reached)), strict=True) if flag]
        for number in reached:
            sizes[number] += 1
    return [-size if sign else size for sign, size in zip(signs, sizes, strict=True)]


def tensor_values(bits: Bits, dims: list[int]) -> list[float]:
    step = struct.unpack(">f", struct.pack(">HH", bits.integer(16), 0))[0]
    rows = 1 if len(dims) == 1 else dims[0]
    cols = math.prod(dims) // rows
    turned = rows > cols
    places = pattern(bits, cols, rows) if turned else pattern(bits, rows, cols)
    values = [0.0] * math.prod(dims)
    for (row, col), number in zip(places, numbers(bits, len(places)), strict=True):
        values[col * cols + row if turned else row * cols + col] = number * step
    return values


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def decode(data: bytes) -> bytes:
    magic, checksum, digest, size = struct.unpack_from("<4sI32sI", data)
    assert magic == b"\x8fBP\x01"
    assert checksum == zlib.crc32(data[8:])
    words = data[44 + size :]
    bits = Bits(list(struct.unpack(f"<{len(words) // 4}I", words)))
    model = ModelProto.FromString(zlib.decompressobj(-15, zdict=DICTIONARY).decompress(data[44 : 44 + size]))
    for tensor in tensors(model):
        formats = {TensorProto.FLOAT: "f", TensorProto.DOUBLE: "d", TensorProto.FLOAT16: "e"}
        if tensor.dims and math.prod(tensor.dims) and not tensor.raw_data and tensor.data_type in formats:
            values = tensor_values(bits, list(tensor.dims))
            tensor.raw_data = struct.pack(f"<{len(values)}{formats[tensor.data_type]}", *values)
    result = model.SerializeToString()
    assert hashlib.sha256(result).digest() == digest
    return result
