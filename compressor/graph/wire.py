"""What a file would become in memory, counted on its bytes before protobuf unpacks them.

Two bytes are an empty node, which takes 146 once it is parsed, and a number of one byte takes eight: a few megabytes of either would fill
the memory before anything could be counted in the parsed model.
"""

from functools import cache

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from onnx import AttributeProto, ModelProto

from compressor.errors import GraphTooLarge, InvalidModel
from compressor.graph.content import EXPORT_AGAIN

MAX_FIELDS = 2**21  # 20,000 nodes with shapes and the exporter's metadata have half as many
MAX_MESSAGES = 2**20
MAX_ATTRIBUTE_NUMBERS = 2**21
# Those that are neither raw nor floats take 8 bytes each once parsed. Our own sparse files have one for each nonzero.
MAX_TENSOR_NUMBERS = 2**24
MAX_TEXT_BYTES = 2**24
MAX_BYTES_OF_TEXTS = 2**26
_MAX_DEPTH = 100  # as protobuf has it

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def check_wire(data: memoryview) -> None:
    """Refuses what would take far more memory than the file, or long, to be parsed.

    Args:     data: a whole ONNX file.
    Raises:
        InvalidModel: no message of protobuf, or a text in it that is not UTF-8.
        GraphTooLarge: too many fields, messages or numbers, or a text that is too long.
    """
    try:
        _Count(data).walk()
    except IndexError:
        raise _no_model("it ends in the middle of a field") from None
    except UnicodeDecodeError:
        raise _no_model("a text in it is not UTF-8") from None


class _Count:
    """Fields, messages and numbers seen so far."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._fields = self._messages = self._attribute_numbers = self._tensor_numbers = self._text_bytes = 0
        self._pending: list[tuple[int, int, int, Descriptor]] = [(0, len(data), 0, ModelProto.DESCRIPTOR)]

    def walk(self) -> None:
        """Reads every message; those inside it are put on a list, so that no depth of the file becomes one of Python."""
        while self._pending:
            start, end, depth, message = self._pending.pop()
            if depth > _MAX_DEPTH:
                raise _no_model("messages are nested too deeply")
            self._read(start, end, depth, _fields_with_length(message))

    def _read(self, place: int, end: int, depth: int, known: dict[int, FieldDescriptor]) -> None:
        data = self._data
        while place < end:
            self._fields += 1
            _check("fields", self._fields, MAX_FIELDS)
            tag, place = _varint(data, place)
            kind = tag & 7
            if kind == _BYTES:
                length, begin = _varint(data, place)
                place = begin + length
                field = known.get(tag >> 3)
                if place > end:
                    break
                if field is not None and field.message_type is not None:
                    self._messages += 1
                    _check("messages", self._messages, MAX_MESSAGES)
                    self._pending.append((begin, place, depth + 1, field.message_type))
                elif field is not None:
                    self._look_at(field, data[begin:place])
            elif kind == _VARINT:
                _, place = _varint(data, place)
            elif kind in (_FIXED32, _FIXED64):
                place += 4 if kind == _FIXED32 else 8
            else:
                raise _no_model(f"it has a field of the wire type {kind}")
            if tag < 8:
                raise _no_model("it has a field without a number")
        if place != end:
            raise _no_model("a field is longer than its message")

    def _look_at(self, field: FieldDescriptor, content: memoryview) -> None:
        """A text, bytes, or numbers one after the other."""
        if field.type == FieldDescriptor.TYPE_STRING:
            self._text_bytes += len(content)
            _check("bytes in a text", len(content), MAX_TEXT_BYTES)
            _check("bytes in texts", self._text_bytes, MAX_BYTES_OF_TEXTS)
            str(content, "utf-8")
        elif field.type == FieldDescriptor.TYPE_FLOAT and field.containing_type is AttributeProto.DESCRIPTOR:
            self._attribute_numbers += len(content) // 4
        elif field.type in _OF_VARIABLE_LENGTH:
            # The last byte of each number, and only that, is below 128.
            numbers = int(np.count_nonzero(np.frombuffer(content, dtype=np.uint8) < 128))
            if field.containing_type is AttributeProto.DESCRIPTOR:
                self._attribute_numbers += numbers
            else:
                self._tensor_numbers += numbers
        _check("numbers in attributes", self._attribute_numbers, MAX_ATTRIBUTE_NUMBERS)
        _check("numbers in tensors that are neither raw nor floats", self._tensor_numbers, MAX_TENSOR_NUMBERS)


_OF_VARIABLE_LENGTH = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)


@cache
def _fields_with_length(message: Descriptor) -> dict[int, FieldDescriptor]:
    """Fields by number, of the kinds that are looked at."""
    return {field.number: field for field in message.fields if field.type != FieldDescriptor.TYPE_BYTES}


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    byte = data[place]
    if byte < 128:
        return byte, place + 1
    number, shift = byte & 127, 7
    for after in range(place + 1, place + _MAX_VARINT_BYTES):
        byte = data[after]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, after + 1
        shift += 7
    raise _no_model("a number in it is too long")


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise GraphTooLarge(f"More than {limit:,} {what} are in the file.", param="model", suggestion="Upload a smaller model.")


def _no_model(why: str) -> InvalidModel:
    return InvalidModel(f"The file is not an ONNX model: {why}.", param="model", suggestion=EXPORT_AGAIN)
