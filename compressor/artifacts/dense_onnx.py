"""`model.dense.onnx`: the smaller graph with plain dense tensors, for tools that know nothing of sparse ones. The layout, format_version 1:

An ONNX model, the client's own graph. Where its weights were wanted in half the bytes, a float32 tensor of two or more dimensions is a
Constant node with a float16 value, with a Cast to float behind it, whose output has the tensor's name.

Its metadata_props have an entry "bayespress_dense": the format_version, a space, and the digest, which are the first 32 hexadecimal digits
of the SHA-256 of the model without this entry, serialised with its fields in the order of their numbers, as protobuf does.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.artifacts.digest import check_seal, seal
from compressor.atomic import replacing
from compressor.errors import InvalidArtifact, ModelError
from compressor.graph.names import FreshNames
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors, write_arrays

METADATA_KEY = "bayespress_dense"

Array = npt.NDArray[Any]


def write(path: Path, model: ModelProto, *, halves: Collection[str] = ()) -> None:
    """Writes `model` in inference mode.

    Args:
        path: the file; it is replaced as a whole or not at all.
        model: it stays as it is.
        halves: names of weights, of which those that `to_halves` rounds are stored as float16, with a Cast behind them that ONNX Runtime
            and OpenVINO compute once, as they load the file.
    """
    dense = write_arrays(model, {})
    _halve(dense, {name for name, array in float_tensors(dense).items() if name in halves and _fits(array)})
    seal(dense, METADATA_KEY, "1")
    onnx.checker.check_model(dense, full_check=True)
    with replacing(path) as partial:
        partial.write_bytes(dense.SerializeToString())


def to_halves(arrays: Mapping[str, Array], names: Collection[str]) -> dict[str, Array]:
    """The arrays, those in float32 among `names` rounded to float16 wherever it can hold all of their values."""
    return {
        name: array.astype(np.float16).astype(np.float32) if name in names and _fits(array) else array for name, array in arrays.items()
    }


def read(path: Path) -> dict[str, Array]:
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


def _fits(array: Array) -> bool:
    with np.errstate(over="ignore"):
        return array.dtype == np.float32 and bool(np.isfinite(array.astype(np.float16)).all())


def _halve(model: ModelProto, names: set[str]) -> None:
    """Initialisers and Constant nodes alike become a Constant of float16 and a Cast, which keeps the name."""
    graph = model.graph
    fresh = FreshNames(model)
    added: list[NodeProto] = []
    for name, array in float_tensors(model).items():
        if name in names:
            stored = fresh.like(f"{name}_float16")
            added.append(helper.make_node("Constant", [], [stored], value=numpy_helper.from_array(array.astype(np.float16))))
            added.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names]:
        graph.initializer.remove(tensor)
    for info in [info for info in graph.input if info.name in names]:  # old files list their initialisers among the inputs
        graph.input.remove(info)
    nodes = [node for node in graph.node if names.isdisjoint(node.output)]
    del graph.node[:]
    graph.node.extend([*added, *nodes])
