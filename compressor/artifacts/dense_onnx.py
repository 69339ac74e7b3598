"""`model.dense.onnx`: the smaller graph with plain dense tensors, for tools that know nothing of sparse ones; its weights in half the bytes
where that is wanted."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.artifacts import sparse_onnx
from compressor.atomic import replacing
from compressor.errors import ArtifactMismatch
from compressor.graph.names import FreshNames
from compressor.graph.write import write_arrays


def write(path: Path, model: ModelProto, *, float16: bool = False) -> None:
    """Writes `model` in inference mode.

    Args:
        path: the file; it is replaced as a whole or not at all.
        model: it stays as it is.
        float16: whether float32 tensors of two or more dimensions are stored as float16, with a Cast behind them that ONNX Runtime and
            OpenVINO compute once, as they load the file.
    Raises: ArtifactMismatch where float16 cannot hold a weight.
    """
    dense = write_arrays(model, {})
    if float16:
        _halve(dense)
    onnx.checker.check_model(dense, full_check=True)
    with replacing(path) as partial:
        partial.write_bytes(dense.SerializeToString())


def read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All float tensors of rank 1 or more, by ONNX name; those that a Cast makes of float16 as float32.

    Raises: InvalidArtifact where the file is damaged.
    """
    found = sparse_onnx.read(path)
    casts = [node for node in ModelProto.FromString(path.read_bytes()).graph.node if node.op_type == "Cast" and node.input[0] in found]
    return found | {node.output[0]: found[node.input[0]].astype(np.float32) for node in casts}


def _halve(model: ModelProto) -> None:
    graph = model.graph
    fresh = FreshNames(model)
    added: list[NodeProto] = []
    for tensor in [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2]:
        with np.errstate(over="ignore"):
            halves = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(halves).all():
            raise ArtifactMismatch(
                f"A weight of {tensor.name!r} is beyond float16.", param=tensor.name, suggestion="Leave weight_dtype at float32."
            )
        stored = fresh.like(f"{tensor.name}_float16")
        added.append(helper.make_node("Constant", [], [stored], value=numpy_helper.from_array(halves)))
        added.append(helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
        graph.initializer.remove(tensor)
    cast = {node.output[0] for node in added}
    for info in [info for info in graph.input if info.name in cast]:  # old files list their initialisers among the inputs
        graph.input.remove(info)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*added, *nodes])
