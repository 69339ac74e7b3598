"""The network as it is trained: the uploaded module, or a smaller one without dead units, seen from here in the uploaded shapes."""

from collections.abc import Mapping
from typing import Any, Self

import numpy.typing as npt
import torch
from onnx import ModelProto
from torch import Tensor

from compressor.admission import to_numpy
from compressor.artifacts.proof import doubt
from compressor.graph.module import OnnxModule
from compressor.graph.write import to_inference
from compressor.structure import Compaction, compact, keep_all

Tensors = dict[str, Tensor]

_WORTHWHILE = 0.8  # of the parameters: above it, building another module costs more than it saves


class Network:
    """A module that stands for the uploaded one.

    Args:
        module: the uploaded module, or the one of `compaction`.
        compaction: between the shapes of both; None where they are the same.
        cost: of a step, in steps of the uploaded module; about.
    """

    def __init__(self, module: OnnxModule, compaction: Compaction | None = None, cost: float = 1.0) -> None:
        self.module = module
        self.cost = cost
        self._compaction = compaction

    @classmethod
    def holding(cls, whole: OnnxModule, model: ModelProto, tensors: Mapping[str, Tensor]) -> Self:
        """`tensors` in the smallest network that gives the same outputs: without the units that they leave dead, where that pays.

        Where it does not, the dead units are 0 in the whole one. Where it is not proven that the outputs are the same, nothing is changed.
        """
        compaction, device = _compact(whole, model, tensors), next(iter(tensors.values())).device
        masked, small = to_inference(keep_all(model, _to_arrays(tensors)).model), to_inference(compaction.model)
        if doubt(masked, small, to_numpy(whole.example or ()), whole.output.name) is not None:
            network = cls(whole)
            network.load(tensors)
            return network
        shrunk = compaction.shrink({name: compaction.folded[name] for name in tensors})
        folded = {name: torch.from_numpy(array).to(device) for name, array in compaction.expand(shrunk).items()}
        network = cls._smaller(whole, compaction, device) or cls(whole)
        network.load(folded)
        return network

    @classmethod
    def _smaller(cls, whole: OnnxModule, compaction: Compaction, device: torch.device) -> Self | None:
        before = sum(array.size for array in compaction.folded.values())
        after = sum(array.size for array in compaction.shrink(compaction.folded).values())
        if after > _WORTHWHILE * before:
            return None
        module = OnnxModule(compaction.model, whole.output.name)
        if module.weight_names != whole.weight_names or list(module.state()) != list(whole.state()):
            return None  # a weight of a single element counts as another kind of tensor
        return cls(module.to(device), compaction, after / before)

    def tensors(self) -> Tensors:
        """Everything that training changes, in the uploaded shapes; copies."""
        held = {name: tensor.detach().clone() for name, tensor in self.module.state().items()}
        return held if self._compaction is None else self._compaction.expand(held)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over tensors of the uploaded shapes; what they have outside the smaller network must be dead, as where it came from."""
        small = tensors if self._compaction is None else self._compaction.shrink(dict(tensors))
        for name, tensor in self.module.state().items():
            tensor.copy_(small[name])

    def shrink(self, masks: Mapping[str, Tensor]) -> Tensors:
        """What of masks in the uploaded shapes belongs to this module's weights."""
        return dict(masks) if self._compaction is None else self._compaction.shrink(dict(masks))

    def expand(self, values: Mapping[str, Tensor], fill: float) -> Tensors:
        """Values by weight of this module in the uploaded shapes, with `fill` where it has no such weight."""
        if self._compaction is None:
            return dict(values)
        there = self._compaction.expand({name: torch.ones_like(value, dtype=torch.bool) for name, value in values.items()})
        expanded = self._compaction.expand(dict(values))
        return {name: value.masked_fill(~there[name], fill) for name, value in expanded.items()}


def count_live(whole: OnnxModule, model: ModelProto, tensors: Mapping[str, Tensor]) -> int:
    """Nonzeros of tensors of two or more dimensions that lie on a path through the network."""
    compaction = _compact(whole, model, tensors)
    live = compaction.shrink({name: array for name, array in compaction.folded.items() if name in tensors and array.ndim >= 2})
    return sum(int((array != 0).sum()) for array in live.values())


def _compact(whole: OnnxModule, model: ModelProto, tensors: Mapping[str, Tensor]) -> Compaction:
    declared = all(None not in spec.shape[1:] for spec in whole.inputs)  # else the random rows of an import would be too short
    return compact(model, _to_arrays(tensors), output=whole.output.name, drop_dead_inputs=declared)


def _to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
