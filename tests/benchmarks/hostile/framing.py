"""Files that are something else, or whose bytes become far more once they are unpacked."""

import gzip
import io
import pickle
import zipfile

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from tests.benchmarks.hostile.case import Case, changed, of_bytes
from tests.compressor.graph.models import linear_model, node

_OWN = "own"
_SIZE = "2 GiB protobuf"
_GRAPH, _NODE, _ATTRIBUTE, _TENSOR = 7, 1, 5, 5


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf that has a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def _in_graph(content: bytes) -> bytes:
    """A valid model, with more in its graph: protobuf joins the two."""
    return linear_model().SerializeToString() + field(_GRAPH, content)


def _millions_of(content: bytes, count: int = 8_000_000) -> bytes:
    return content * count


def _packed(number: int, kind: int, count: int) -> bytes:
    """An initialiser of zeros, one byte each."""
    dims = field(1, varint(count))
    return field(_TENSOR, dims + varint(2 << 3) + varint(kind) + field(number, bytes(count)) + field(8, b"bomb"))


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weights": [1.0] * 10}))
        archive.writestr("model/code/__torch__.py", "def forward(self): ...")
    return file.getvalue()


class _Command:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def _nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):  # graph in attribute in node in graph
        content = field(6, field(_NODE, field(_ATTRIBUTE, content)))
    return _in_graph(field(_NODE, field(_ATTRIBUTE, content)))


def _not_utf8(model: ModelProto, _: str) -> None:
    model.graph.node[1].name = "Q" * 40


def _with_two_fields(model: ModelProto, _: str) -> None:
    model.graph.initializer[0].float_data.extend([1.0] * 20)


def _with_segment(model: ModelProto, _: str) -> None:
    model.graph.initializer[0].segment.CopyFrom(TensorProto.Segment(begin=0, end=1))


def _huge_dimension(model: ModelProto, _: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.dims[:] = [2**40, 1]
    tensor.raw_data = bytes(64)


def _empty_and_huge(model: ModelProto, _: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.dims[:] = [0, 2**62, 4]
    tensor.raw_data = b""


def _unpacked_int64(model: ModelProto, _: str) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((2, 2), np.int64), "extra"))
    model.graph.initializer[-1].dims[0] = -2


_TRUNCATED = linear_model().SerializeToString()[:-200]
_TEXT = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5\nsize 100\n"

CASES = (
    Case("file: larger than protobuf", _SIZE, "graph_too_large", lambda _: 2**31),
    Case("file: two gigabytes of zeros", _SIZE, "invalid_model", lambda _: 2**31 - 1),
    Case("file: empty", _OWN, "invalid_model", of_bytes(b"")),
    Case("file: truncated", _OWN, "invalid_model", of_bytes(_TRUNCATED)),
    Case("file: pickle", _OWN, "invalid_model", of_bytes(pickle.dumps(_Command()))),
    Case("file: zip of TorchScript or .pt2", _OWN, "invalid_model", of_bytes(_zip())),
    Case("file: gzip", _OWN, "invalid_model", of_bytes(gzip.compress(linear_model().SerializeToString(), mtime=0))),
    Case("file: Git LFS pointer", _OWN, "invalid_model", of_bytes(_TEXT)),
    Case("file: a name that is not UTF-8", _OWN, "invalid_model", lambda _: changed(_not_utf8)("").replace(b"Q" * 40, b"\xff\xfe" * 20)),
    Case("wire: millions of empty nodes", _OWN, "graph_too_large", lambda _: _in_graph(_millions_of(field(_NODE, b"")))),
    Case(
        "wire: millions of attributes",
        _OWN,
        "graph_too_large",
        lambda _: _in_graph(field(_NODE, _millions_of(field(_ATTRIBUTE, b"")))),
        is_slow=True,
    ),
    Case(
        "wire: names of a million outputs",
        _OWN,
        "graph_too_large",
        changed(lambda model, _: model.graph.node.extend([node("Split", ["x"], ["o"] * 4000) for _ in range(100)])),
    ),
    Case("wire: a text of 16 MiB, twenty times", _OWN, "graph_too_large", lambda _: field(6, b"d" * (2**24 - 1)) * 20, is_slow=True),
    Case("wire: millions of initialisers", _OWN, "graph_too_large", lambda _: _in_graph(_millions_of(field(_TENSOR, b""))), is_slow=True),
    Case(
        "wire: millions of inputs of a node",
        _OWN,
        "graph_too_large",
        lambda _: _in_graph(field(_NODE, _millions_of(field(1, b"")))),
        is_slow=True,
    ),
    Case(
        "wire: millions of shapes noted", _OWN, "graph_too_large", lambda _: _in_graph(_millions_of(field(13, field(2, b"")))), is_slow=True
    ),
    Case("wire: millions of unknown fields", _OWN, "graph_too_large", lambda _: _millions_of(varint(99 << 3) + b"\0"), is_slow=True),
    Case("wire: integers of one byte", _OWN, "graph_too_large", lambda _: _in_graph(_packed(7, TensorProto.INT64, 64_000_000))),
    Case("wire: half floats of one byte", _OWN, "graph_too_large", lambda _: _in_graph(_packed(5, TensorProto.FLOAT16, 64_000_000))),
    Case(
        "wire: millions of strides",
        _OWN,
        "graph_too_large",
        lambda _: _in_graph(field(_NODE, field(_ATTRIBUTE, field(8, bytes(64_000_000))))),
    ),
    Case("wire: a text of 32 MiB", _OWN, "graph_too_large", lambda _: linear_model().SerializeToString() + field(6, b"a" * 2**25)),
    Case("wire: a thousand graphs in each other", "If/Loop/Scan; nested If", "invalid_model", of_bytes(_nested(1000))),
    Case("tensor: dimension of 2^40, 64 bytes", "dims 2^40 with 64 raw bytes", "graph_too_large", changed(_huge_dimension)),
    Case("tensor: empty, other dimensions overflow", _OWN, "graph_too_large", changed(_empty_and_huge)),
    Case("tensor: negative dimension", _OWN, "invalid_model", changed(_unpacked_int64)),
    Case("tensor: raw and typed numbers", _OWN, "invalid_model", changed(_with_two_fields)),
    Case("tensor: in segments", _OWN, "invalid_model", changed(_with_segment)),
)
