"""The control: global magnitude pruning, the baseline that a Bayesian method has to beat at equal size."""

from collections.abc import Mapping

import torch
from torch import Tensor


def magnitude_masks(weights: Mapping[str, Tensor], nnz: int) -> dict[str, Tensor]:
    """True for exactly the `nnz` weights of largest absolute value over all tensors together; ties go to the earlier one.

    Args:
        weights: tensors by name, any shapes, one device.
        nnz: how many to keep, from 0 to the number of all weights.
    """
    flat = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    keep = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    keep[torch.argsort(flat, descending=True, stable=True)[:nnz]] = True
    parts = torch.split(keep, [weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


_PRUNING_STARTS, _PRUNING_ENDS = 0.1, 0.6  # parts of the training; what is left of it repairs


def cubic_sparsity(part: float, final: float) -> float:
    """Sparsity when `part` of the training is done: 0 at first, then cubically up to `final`.

    Source: Zhu and Gupta 2017, arXiv:1710.01878.
    """
    ramp = min(1.0, max(0.0, (part - _PRUNING_STARTS) / (_PRUNING_ENDS - _PRUNING_STARTS)))
    return final * (1.0 - (1.0 - ramp) ** 3)
