"""Dropout of a fixed rate as a posterior over the weights: where the method comes from, one step before a rate is learned for each."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.graph.gaussian import GaussianValue


class BinaryDropout:
    """q(w): w / (1 - rate) with probability 1 - rate, else 0, each weight by itself.

    Args:
        means: the weights by name; any shapes.
        rate: probability p that a weight is dropped, in [0, 1).
    Source: Srivastava et al. 2014; by weight as in Wan et al. 2013 (DropConnect).
    """

    def __init__(self, means: Mapping[str, Tensor], rate: float) -> None:
        self._means = dict(means)
        self._rate = rate

    def values(self) -> dict[str, Tensor]:
        """One draw of every weight, by torch's default generator; differentiable in the means."""
        kept = 1.0 - self._rate
        return {name: mean * torch.bernoulli(torch.full_like(mean, kept)) / kept for name, mean in self._means.items()}


class GaussianDropout:
    """q(w) = N(mean, alpha mean^2), alpha the same for all weights: multiplicative noise N(1, alpha).

    With alpha = p / (1 - p) pre-activations have the first two moments that BinaryDropout of rate p gives them. Under the log-uniform prior
    its KL does not depend on the means, which is what makes training with it variational inference.

    Args:
        means: the weights by name; any shapes.
        alpha: at least 0.
    Source: Wang and Manning 2013; Kingma et al. 2015, arXiv:1506.02557, section 3.
    """

    def __init__(self, means: Mapping[str, Tensor], alpha: float) -> None:
        self._means = dict(means)
        self._alpha = alpha

    def values(self) -> dict[str, GaussianValue]:
        """The weights as they flow through the graph; differentiable in the means."""
        return {name: GaussianValue(mean, self._alpha * mean.square()) for name, mean in self._means.items()}
