"""The network as it is trained: the uploaded module, or a smaller one without dead units, seen from here in the uploaded shapes."""

from collections.abc import Mapping
from typing import Self

import torch
from onnx import ModelProto
from torch import Tensor

from compressor.graph.module import OnnxModule

Tensors = dict[str, Tensor]


class Network:
    """A module that stands for the uploaded one."""

    def __init__(self, module: OnnxModule) -> None:
        self.module = module

    @classmethod
    def holding(cls, whole: OnnxModule, model: ModelProto, tensors: Mapping[str, Tensor]) -> Self:
        """`tensors` in the smallest network that gives the same outputs: without units that they leave dead, where that pays."""
        del model
        network = cls(whole)
        network.load(tensors)
        return network

    @property
    def cost(self) -> float:
        """Of a step, in steps of the whole network; about."""
        return 1.0

    def tensors(self) -> Tensors:
        """Everything that training changes, in the uploaded shapes; copies."""
        return {name: tensor.detach().clone() for name, tensor in self.module.state().items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self.module.state().items():
            tensor.copy_(tensors[name])

    def shrink(self, masks: Mapping[str, Tensor]) -> Tensors:
        """What of masks in the uploaded shapes belongs to this module's weights."""
        return dict(masks)

    def expand(self, values: Mapping[str, Tensor], fill: float) -> Tensors:
        """Values by weight of this module in the uploaded shapes, with `fill` where it has no such weight."""
        del fill
        return dict(values)
