"""A model's outputs somewhere else than in ONNX Runtime: in OpenVINO where it is installed (extra `openvino`), else in onnx.reference.

One runtime alone may agree with us by chance: OpenVINO has been seen to read a decoder made of BitShift wrongly, without an error.
"""

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]


class Outputs(NamedTuple):
    """`runtime` with its version."""

    runtime: str
    values: Array


def run_elsewhere(model: ModelProto, materialised: ModelProto, inputs: Sequence[Array], output: str) -> Outputs | None:
    """The output for some rows; None where the other runtime lacks an operator, which says nothing of the file.

    Args:
        model: as it lies in the file.
        materialised: the same with dense initialisers, for onnx.reference, which does not read sparse ones.
        inputs: one array for each input, of a batch size that the model takes.
    """
    feeds = {info.name: rows for info, rows in zip(_inputs(model), inputs, strict=True)}
    try:
        if find_spec("openvino") is not None:
            return Outputs(f"openvino {version('openvino')}", _in_openvino(model, feeds, output))
        values = next(iter(ReferenceEvaluator(materialised).run([output], feeds)))
        return Outputs(f"onnx.reference {version('onnx')}", np.asarray(values))
    except Exception:  # neither has a base class of what it raises over an operator that it does not have
        return None


def _in_openvino(model: ModelProto, feeds: dict[str, Array], output: str) -> Array:
    import openvino  # an extra

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(feeds)[output])


def _inputs(model: ModelProto) -> list[Any]:
    initialised = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in initialised]
