"""What a hostile file is here: how it is made, what it copies, and the code that it must be refused with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from tests.compressor.graph.models import linear_model, model_of, node, values

# What stands where a code would, for files whose poison must do nothing rather than be refused.
HARMLESS = "admitted"

PLANTED = "planted.bin"  # lies in the working directory, beside it, and at an absolute path
LINK = "link.bin"  # a symbolic link to the absolute one, in the working directory
EXECUTED = "executed.txt"  # comes to be where a name is run as code


@dataclass(frozen=True)
class Case:
    """A file, made anew each time.

    Attributes:
        row: the known attack that it is one of (tests/compressor/graph/test_hostile.py lists these), or "own".
        code: of the refusal, or HARMLESS.
        make: the bytes of the file, given the absolute path of the planted file; a number is the size of an empty file.
        is_slow: takes seconds until it is refused: left out of the default tests.
    """

    name: str
    row: str
    code: str
    make: Callable[[str], bytes | int]
    is_slow: bool = False


def of_bytes(data: bytes) -> Callable[[str], bytes]:
    return lambda _: data


def changed(change: Callable[[ModelProto, str], object]) -> Callable[[str], bytes]:
    """The small linear model after `change(model, planted)`."""

    def make(planted: str) -> bytes:
        model = linear_model()
        change(model, planted)
        return model.SerializeToString()

    return make


def built(make: Callable[[], ModelProto]) -> Callable[[str], bytes]:
    return lambda _: make().SerializeToString()


def beside(nodes: Sequence[NodeProto], arrays: Mapping[str, Any] | None = None, *, opset: int = 17) -> Callable[[str], bytes]:
    """y = x @ w, with x [n, 4] and w [4, 3], plus the number `r` that `nodes` make of `arrays` and `x`."""

    def make(_: str) -> bytes:
        given = {name: np.asarray(array) for name, array in (arrays or {}).items()}
        all_nodes = [*nodes, node("MatMul", ["x", "w"], "product"), node("Add", ["product", "r"], "y")]
        return model_of(all_nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3), **given}, opset).SerializeToString()

    return make


def summed(name: str) -> list[NodeProto]:
    """The sum of everything in `name` as the number that `beside` wants, in float32."""
    return [node("Cast", [name], "as_float", to=TensorProto.FLOAT), node("ReduceSum", ["as_float"], "r", keepdims=0)]
