"""Skims a file while it streams past: the framing of its bytes says what it is. Nothing is parsed, nothing is kept.

The fields at the top level of an ONNX model (a protobuf `ModelProto`) must tile the file exactly: each begins with a tag of a known field
and its wire type, and a length that leads to the next tag. Text, pickles and archives fail at the first tag, a truncated file at its end.
"""

import re
from typing import Protocol

from compressor.errors import InvalidDataset, InvalidModel
from service.framing.signatures import describe_start

HEAD_BYTES = 512
MAX_FIELDS = 100_000
MAX_VARINT_BYTES = 10

VARINT, LENGTH_DELIMITED = 0, 2
# onnx.ModelProto: field number -> (name, wire type).
MODEL_FIELDS = {
    1: ("ir_version", VARINT),
    2: ("producer_name", LENGTH_DELIMITED),
    3: ("producer_version", LENGTH_DELIMITED),
    4: ("domain", LENGTH_DELIMITED),
    5: ("model_version", VARINT),
    6: ("doc_string", LENGTH_DELIMITED),
    7: ("graph", LENGTH_DELIMITED),
    8: ("opset_import", LENGTH_DELIMITED),
    14: ("metadata_props", LENGTH_DELIMITED),
    20: ("training_info", LENGTH_DELIMITED),
    25: ("functions", LENGTH_DELIMITED),
    26: ("configuration", LENGTH_DELIMITED),
}
REQUIRED_FIELDS = (1, 7, 8)

EXPORT_MODEL = "Send an ONNX file in its binary form, as torch.onnx.export(...) or onnx.save(...) writes it."
EXPORT_DATASET = "Send a .parquet file (as Dataset.to_parquet or DataFrame.to_parquet write it) or .npz (numpy.savez(file, x=..., y=...))."


class Skimmer(Protocol):
    """Looks at the chunks of one file in order, and raises as soon as the file cannot be what it should be.

    `suffix` says which kind of file it is; None until the bytes have shown it.
    """

    @property
    def suffix(self) -> str | None: ...

    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> None: ...


class ModelSkimmer:
    """Raises InvalidModel where the file is not framed as an onnx.ModelProto."""

    def __init__(self, param: str = "model") -> None:
        self.suffix: str | None = ".onnx"
        self._param = param
        self._head = b""
        self._misframed_at: int | None = None
        self._seen: set[int] = set()
        self._num_fields = 0
        self._num_bytes = 0
        # The field that is being read: 0 where a tag comes next.
        self._field = 0
        self._length = 0
        self._remaining = 0
        self._varint = 0
        self._varint_bytes = 0

    def feed(self, chunk: bytes) -> None:
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
        position = 0
        while position < len(chunk) and self._misframed_at is None:
            if self._remaining:
                step = min(self._remaining, len(chunk) - position)
                self._remaining -= step
                position += step
                if not self._remaining:
                    self._field = 0
            else:
                self._take(chunk[position], self._num_bytes + position)
                position += 1
        self._num_bytes += len(chunk)
        # The head says what the file is instead, so it is waited for.
        if self._misframed_at is not None and len(self._head) == HEAD_BYTES:
            raise self._misframing(self._misframed_at)

    def finish(self) -> None:
        if not self._num_bytes:
            raise self._refusal("The file is empty.")
        if self._misframed_at is not None:
            raise self._misframing(self._misframed_at)
        if self._remaining:
            came = self._length - self._remaining
            raise self._truncation(f"field {self._named()} says {self._length:,} bytes, {came:,} came")
        if self._field or self._varint_bytes:
            raise self._truncation("it ends in the middle of a field")
        missing = [MODEL_FIELDS[number][0] for number in REQUIRED_FIELDS if number not in self._seen]
        if missing:
            raise self._refusal(f"The file lacks the field {missing[0]!r} of an ONNX model; it may be cut off between two fields.")

    def _take(self, byte: int, offset: int) -> None:
        """One byte of a varint: of a tag, of a length, or of a value."""
        self._varint |= (byte & 0x7F) << (7 * self._varint_bytes)
        self._varint_bytes += 1
        if byte & 0x80:
            if self._varint_bytes == MAX_VARINT_BYTES:
                self._misframed_at = offset
            return
        value, self._varint, self._varint_bytes = self._varint, 0, 0
        if not self._field:
            self._begin(value, offset)
        elif MODEL_FIELDS[self._field][1] == VARINT or value == 0:
            self._field = 0
        else:
            self._length = self._remaining = value

    def _begin(self, tag: int, offset: int) -> None:
        number, wire_type = tag >> 3, tag & 7
        if number not in MODEL_FIELDS or MODEL_FIELDS[number][1] != wire_type:
            self._misframed_at = offset
            return
        self._num_fields += 1
        if self._num_fields > MAX_FIELDS:
            raise self._refusal(f"The file has more than {MAX_FIELDS:,} fields at its top level.")
        self._seen.add(number)
        self._field = number

    def _named(self) -> str:
        return f"{self._field} ({MODEL_FIELDS[self._field][0]})"

    def _misframing(self, offset: int) -> InvalidModel:
        looks_like = describe_start(self._head)
        if looks_like:
            return self._refusal(f"The file is not an ONNX model: it looks like {looks_like}.")
        return self._refusal(f"The file is not an ONNX model: at byte {offset:,} there is no field of one.")

    def _truncation(self, what: str) -> InvalidModel:
        looks_like = describe_start(self._head)
        if looks_like:
            return self._refusal(f"The file is not an ONNX model: it looks like {looks_like}.")
        suggestion = "Compare its size and checksum with the original, and send it again."
        return InvalidModel(f"The file is truncated: {what}.", param=self._param, suggestion=suggestion)

    def _refusal(self, detail: str) -> InvalidModel:
        return InvalidModel(detail, param=self._param, suggestion=EXPORT_MODEL)


PARQUET, NPZ = ".parquet", ".npz"
PARQUET_MAGIC = b"PAR1"
ZIP_LOCAL_HEADER = b"PK\x03\x04"
ZIP_END_OF_DIRECTORY = b"PK\x05\x06"
# The end record of a zip archive: 22 bytes and a comment of at most 65,535.
TAIL_BYTES = 22 + 65_535
# ir_version, then the producer's name or version, or the graph.
_MODEL_START = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x3a]")


class DatasetSkimmer:
    """Raises InvalidDataset where the file is neither framed as parquet nor as .npz."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._head = b""
        self._tail = b""
        self._num_bytes = 0
        self.suffix: str | None = None

    def feed(self, chunk: bytes) -> None:
        self._num_bytes += len(chunk)
        self._tail = (self._tail + chunk[-TAIL_BYTES:])[-TAIL_BYTES:]
        if self.suffix is None:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self._decide()

    def finish(self) -> None:
        if not self._num_bytes:
            raise self._refusal("The file is empty.")
        if self.suffix is None:
            self._decide()
        if self.suffix == PARQUET and not (self._num_bytes >= 12 and self._tail.endswith(PARQUET_MAGIC)):
            raise self._truncation("a parquet file ends with PAR1")
        if self.suffix == NPZ and ZIP_END_OF_DIRECTORY not in self._tail:
            raise self._truncation("its zip directory is missing")

    def _decide(self) -> None:
        if self._head.startswith(PARQUET_MAGIC):
            self.suffix = PARQUET
        elif self._head.startswith(ZIP_LOCAL_HEADER) and _first_member(self._head).endswith(".npy"):
            self.suffix = NPZ
        else:
            looks_like = "an ONNX model" if _MODEL_START.match(self._head) else describe_start(self._head)
            raise self._refusal("The file is neither parquet nor .npz" + (f": it looks like {looks_like}." if looks_like else "."))

    def _truncation(self, what: str) -> InvalidDataset:
        suggestion = "Compare its size and checksum with the original, and send it again."
        return InvalidDataset(f"The file is truncated after {self._num_bytes:,} bytes: {what}.", param=self._param, suggestion=suggestion)

    def _refusal(self, detail: str) -> InvalidDataset:
        return InvalidDataset(detail, param=self._param, suggestion=EXPORT_DATASET)


def _first_member(head: bytes) -> str:
    """The name of the first member of a zip archive."""
    length = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + length].decode("utf-8", "replace")
