"""A model's outputs somewhere else than in ONNX Runtime: in OpenVINO where it is installed (extra `openvino`), and in onnx.reference.

One runtime alone may agree with us by chance: OpenVINO has been seen to read a decoder made of BitShift wrongly, without an error. But no
runtime knows every operator, and OpenVINO 2026.4 computes an LSTM with peepholes otherwise than all others: what it says of a file counts
only where it is right about the dense graph that the file stands for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto
from onnx.reference import ReferenceEvaluator

from compressor.graph.tensors import numpy_dtype

Array = npt.NDArray[Any]

_ROWS = 8


class SecondRuntime(NamedTuple):
    """`name` with its version; `run` gives an output for some rows, and raises whatever it likes where it cannot.

    `reads_sparse`: whether it takes a file as it is, and not only the same graph with dense initialisers.
    """

    name: str
    reads_sparse: bool
    run: Callable[[ModelProto, Mapping[str, Array], str], Array]


def second_runtimes() -> Iterator[SecondRuntime]:
    """The best judge first."""
    if find_spec("openvino") is not None:
        yield SecondRuntime(f"openvino {version('openvino')}", True, _in_openvino)
    yield SecondRuntime(f"onnx.reference {version('onnx')}", False, _in_reference)


def some_rows(model: ModelProto, inputs: Sequence[Array]) -> dict[str, Array]:
    """By input of `model` a few rows, or as many as the graph has built in, the last one repeated.

    Args:   inputs: one array for each input, in their order; cast to its type. Old files list initialisers among the inputs: they are none.
    """
    infos = _inputs(model)
    sizes = [info.type.tensor_type.shape.dim[0].dim_value for info in infos if info.type.tensor_type.shape.dim]
    index = np.minimum(np.arange(max(sizes, default=0) or _ROWS), len(inputs[0]) - 1)
    kinds = [numpy_dtype(info.type.tensor_type.elem_type) for info in infos]
    return {info.name: rows[index].astype(kind, copy=False) for info, kind, rows in zip(infos, kinds, inputs, strict=True)}


def _in_openvino(model: ModelProto, feeds: Mapping[str, Array], output: str) -> Array:
    import openvino  # an extra

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(dict(feeds))[output])


def _in_reference(model: ModelProto, feeds: Mapping[str, Array], output: str) -> Array:
    return np.asarray(next(iter(ReferenceEvaluator(model).run([output], dict(feeds)))))


def _inputs(model: ModelProto) -> list[ValueInfoProto]:
    initialised = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in initialised]
