"""`model.dense.onnx`: the smaller graph with plain dense tensors, for tools that know nothing of sparse ones. The layout, format_version 1:

An ONNX model, the client's own graph. Where its weights were wanted in half the bytes, a float32 tensor of two or more dimensions is a
Constant node with a float16 value, with a Cast to float behind it, whose output has the tensor's name.

Its metadata_props have an entry "bayespress_dense": the format_version, a space, and the digest, which are the first 32 hexadecimal digits
of the SHA-256 of the model without this entry, serialised with its fields in the order of their numbers, as protobuf does.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.artifacts.digest import check_seal, seal
from compressor.atomic import replacing
from compressor.errors import ArtifactMismatch, InvalidArtifact, ModelError
from compressor.graph.names import FreshNames
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors, write_arrays

METADATA_KEY = "bayespress_dense"


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
    seal(dense, METADATA_KEY, "1")
    onnx.checker.check_model(dense, full_check=True)
    with replacing(path) as partial:
        partial.write_bytes(dense.SerializeToString())


def read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All float tensors of rank 1 or more, by ONNX name; those that a Cast makes of float16 as float32.

    Raises: InvalidArtifact where the file is damaged or not of this format.
    """
    try:
        model = parse_model(path.read_bytes())
        if check_seal(model, METADATA_KEY) != "1":
            raise ValueError(f"its {METADATA_KEY} is not of format_version 1")
        found = float_tensors(model)
    except (ModelError, ValueError, OSError) as error:
        raise InvalidArtifact(
            f"{path.name}: not a readable model.dense.onnx ({error}).", param=path.name, suggestion="Download the artifact again."
        ) from error
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in found]  # the checker has counted its inputs
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
