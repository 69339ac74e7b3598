"""compact(): a graph without its dead units, and the way between the tensors of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import ModelProto, TensorShapeProto

from compressor.graph.reader import read_graph
from compressor.graph.write import float_tensors
from compressor.structure.dead import settle
from compressor.structure.rewrite import rewrite, write_tensors
from compressor.structure.scope import Scope, Shape
from compressor.structure.trace import trace_units
from compressor.structure.units import Array, Mask, Trace

Kept = tuple[npt.NDArray[np.intp] | None, ...]
TensorT = TypeVar("TensorT", Array, torch.Tensor)


@dataclass(frozen=True)
class Compaction:
    """A graph and its smaller twin, which gives the same outputs up to the order of summation.

    Attributes:
        model: the smaller graph, with the tensors `shrink(folded)`.
        folded: every float tensor in its original shape: in the original graph it gives the outputs of the arrays that were given.
        kept: by tensor, the indices that stay along each axis; None where all do.
    """

    model: ModelProto
    folded: Mapping[str, Array]
    kept: Mapping[str, Kept]

    def shrink(self, tensors: Mapping[str, TensorT]) -> dict[str, TensorT]:
        """Tensors of the smaller graph from those of the original one, by name; what is not cut is given back as it is."""
        return {name: tensor[self._index(name, tensor)] if self._is_cut(name) else tensor for name, tensor in tensors.items()}

    def expand(self, tensors: Mapping[str, TensorT]) -> dict[str, TensorT]:
        """Tensors of the original shapes, 0 or False where a unit was cut: in the original graph they give the smaller one's outputs."""
        expanded = {}
        for name, tensor in tensors.items():
            expanded[name] = tensor
            if self._is_cut(name):
                shape = self.folded[name].shape
                expanded[name] = tensor.new_zeros(shape) if isinstance(tensor, torch.Tensor) else np.zeros(shape, tensor.dtype)
                expanded[name][self._index(name, tensor)] = tensor
        return expanded

    def _is_cut(self, name: str) -> bool:
        return any(indices is not None for indices in self.kept.get(name, ()))

    def _index(self, name: str, like: Array | torch.Tensor) -> Any:
        sizes = self.folded[name].shape
        mesh = np.ix_(*[np.arange(size) if kept is None else kept for size, kept in zip(sizes, self.kept[name], strict=True)])
        return tuple(torch.from_numpy(indices).to(like.device) for indices in mesh) if isinstance(like, torch.Tensor) else mesh


def compact(
    model: ModelProto,
    arrays: Mapping[str, Array],
    *,
    output: str | None = None,
    drop_dead_inputs: bool = False,
) -> Compaction:
    """The smaller twin of `model`, without the units that contribute nothing: neurons, filters, hidden units, columns of tables, heads.

    A unit goes if all weights that read it are 0, or if all that it is made from are: then what it holds is a constant, which is folded
    into the next bias where that is exact. Batch normalisation and dropout count in inference mode, a normalisation by the batch as
    something unknown. Every axis keeps one unit.

    Args:
        model: from parse_model; it stays as it is.
        arrays: float tensors by name, as float_tensors gives them, 0 where they are pruned; those of the file where one is absent.
        output: the only output that the smaller graph has; all of them where it is None.
        drop_dead_inputs: where one Gemm or MatMul is all that reads an input, gather the features that it has weights for. The input
            itself stays as it is.
    Returns: what could be proven to be dead is gone; of a graph that is not understood, nothing.
    """
    small = ModelProto()
    small.CopyFrom(model)
    if output is not None:
        for info in [info for info in small.graph.output if info.name != output]:
            small.graph.output.remove(info)
    stored = float_tensors(model)
    folded: dict[str, Array] = {name: np.array(arrays.get(name, array)) for name, array in stored.items()}
    graph = read_graph(small)
    loaded = {name: constant.load() for name, constant in graph.constants.items() if name not in folded}
    constants = folded | {name: found[0] for name, found in loaded.items() if found is not None}
    trace = trace_units(Scope(graph, constants, folded, _shapes(small), drop_dead_inputs=drop_dead_inputs))
    stays = settle(trace, constants)
    compaction = Compaction(small, folded, _kept(trace, stays, folded))
    shrunk = compaction.shrink(folded)
    rewrite(small, trace, stays, {name: array for name, array in shrunk.items() if not np.array_equal(array, stored[name])})
    return compaction


def keep_all(model: ModelProto, arrays: Mapping[str, Array]) -> Compaction:
    """What `compact` gives where nothing goes: `model` with `arrays`."""
    same = ModelProto()
    same.CopyFrom(model)
    stored = float_tensors(model)
    folded: dict[str, Array] = {name: np.array(arrays.get(name, array)) for name, array in stored.items()}
    write_tensors(same, {name: array for name, array in folded.items() if not np.array_equal(array, stored[name])})
    return Compaction(same, folded, {name: (None,) * array.ndim for name, array in folded.items()})


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """What inference makes of the shapes of the inputs; what the file says of other values is not believed."""
    bare = ModelProto()
    bare.CopyFrom(model)
    bare.graph.ClearField("value_info")
    for info in bare.graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    known = [info for info in (*inferred.input, *inferred.value_info, *inferred.output) if info.type.tensor_type.HasField("shape")]
    return {info.name: tuple(map(_size, info.type.tensor_type.shape.dim)) for info in known}


def _size(dim: TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def _kept(trace: Trace, stays: Mask, arrays: Mapping[str, Array]) -> dict[str, Kept]:
    kept: dict[str, list[npt.NDArray[np.intp] | None]] = {name: [None] * array.ndim for name, array in arrays.items()}
    for cut in trace.cuts:
        if not stays[cut.units].all():
            kept[cut.tensor][cut.axis] = np.flatnonzero(stays[cut.units])
    return {name: tuple(axes) for name, axes in kept.items()}
