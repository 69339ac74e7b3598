"""The tensors of a search in its checkpoint: they go by their position in the module, since names are the client's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.graph.module import OnnxModule
from compressor.search.network import Tensors
from compressor.training.checkpoint import optimizer_tensors, restore_optimizer
from compressor.variational.posterior import Posterior


@dataclass(frozen=True)
class Fit:
    """What a round changes as it goes."""

    module: OnnxModule
    posterior: Posterior
    optimizer: torch.optim.Adam

    def to_checkpoint(self) -> Tensors:
        """References, not copies."""
        tensors = {f"parameter/{index}": tensor.detach() for index, tensor in enumerate(self.module.state().values())}
        tensors |= {f"log_sigma2/{index}": tensor.detach() for index, tensor in enumerate(self.posterior.log_sigma2.values())}
        return tensors | optimizer_tensors(self.optimizer)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `to_checkpoint` took."""
        for index, parameter in enumerate(self.module.state().values()):
            parameter.copy_(tensors[f"parameter/{index}"])
        for index, log_sigma2 in enumerate(self.posterior.log_sigma2.values()):
            log_sigma2.copy_(tensors[f"log_sigma2/{index}"])
        restore_optimizer(self.optimizer, tensors)


def rounds_to_checkpoint(start: Tensors, log_alpha: Tensors) -> Tensors:
    """What the rounds behind have left; nothing in the first round of a branch, which starts from the dense weights."""
    if not log_alpha:
        return {}
    tensors = {f"start/{index}": tensor for index, tensor in enumerate(start.values())}
    return tensors | {f"log_alpha/{index}": tensor for index, tensor in enumerate(log_alpha.values())}


def restore_rounds(tensors: Mapping[str, Tensor], names: Iterable[str], weight_names: Iterable[str]) -> tuple[Tensors, Tensors] | None:
    """`start` and `log_alpha` of `rounds_to_checkpoint`, by names in the same order; None where it gave nothing."""
    if "log_alpha/0" not in tensors:
        return None
    start = {name: tensors[f"start/{index}"] for index, name in enumerate(names)}
    return start, {name: tensors[f"log_alpha/{index}"] for index, name in enumerate(weight_names)}
