"""The parameters of q(w) = N(mean, sigma^2), one per weight, in the additive parametrisation (mean, log_sigma2).

The multiplicative form w = mean (1 + sqrt(alpha) eps) has a gradient dw/dmean whose variance grows with alpha, so that no rate
could ever reach infinity; with w = mean + sigma eps the gradient is exactly 1 (Molchanov et al. 2017, section 4.2).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.config import ConvNoise
from compressor.graph.gaussian import GaussianValue

_LOG_ALPHA_RANGE = (-16.0, 11.0)  # of a weight of typical size: outside, the noise is below float32 or drowns everything
_SMALLEST_SQUARE = 1e-30  # log_alpha of an exact zero is finite


class Posterior:
    """q(w) of all weights of a module.

    Args:
        means: the module's own weight parameters by name; they stay shared with it.
        log_alpha_init: initial log_alpha of a weight of typical size: sigma^2 is the mean square of its tensor times alpha, so that the
            same number is as much noise for the large weights of one network as for the small ones of another.
        masks: True = keep, by name, for weights of which a part was pruned before: these are 0 for good, without variance, and do not
            count in the mean square. Every weight is there, or None.
        conv_noise: as CompressionConfig has it.
    """

    def __init__(
        self,
        means: Mapping[str, nn.Parameter],
        log_alpha_init: float,
        masks: Mapping[str, Tensor] | None = None,
        conv_noise: ConvNoise = "weights",
    ) -> None:
        self.means = dict(means)
        self._in_halves = conv_noise == "weights"
        self.masks = {} if masks is None else {name: masks[name].to(mean.dtype) for name, mean in means.items()}
        self._log_squares = {name: math.log(max(mean_square(mean, self.masks.get(name)), _SMALLEST_SQUARE)) for name, mean in means.items()}
        self.log_sigma2 = {
            name: nn.Parameter(torch.full_like(mean, self._log_squares[name] + log_alpha_init)) for name, mean in means.items()
        }

    def values(self) -> dict[str, GaussianValue]:
        """The weights as they flow through the graph; differentiable in both parameters."""
        variances = {name: log_sigma2.exp() for name, log_sigma2 in self.log_sigma2.items()}
        variances |= {name: variances[name] * mask for name, mask in self.masks.items()}
        return {name: GaussianValue(mean, variances[name], self._in_halves) for name, mean in self.means.items()}

    def mask_gradients_(self) -> None:
        """Weights that were pruned before get no gradient, so that they stay 0."""
        for name, mask in self.masks.items():
            gradient = self.means[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    @torch.no_grad()
    def log_alpha(self) -> dict[str, Tensor]:
        """log(sigma^2 / mean^2) per weight, float32: the logarithm of the weight's Gaussian dropout rate; infinite where it was pruned."""
        found = {name: self.log_sigma2[name] - log_square(mean) for name, mean in self.means.items()}
        return found | {name: found[name].masked_fill(mask == 0, math.inf) for name, mask in self.masks.items()}

    def keep_masks(self, threshold: float) -> dict[str, Tensor]:
        """True where a weight is kept: exactly where log_alpha < threshold."""
        return {name: log_alpha < threshold for name, log_alpha in self.log_alpha().items()}

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keeps log_sigma2 in a range around the tensor's own scale at the start.

        The data are clamped, never log_alpha inside the loss: a clip there would silence the KL gradient of every weight
        outside it and so protect large weights from pruning.
        """
        low, high = _LOG_ALPHA_RANGE
        for name, log_sigma2 in self.log_sigma2.items():
            log_sigma2.clamp_(self._log_squares[name] + low, self._log_squares[name] + high)


def log_square(mean: Tensor) -> Tensor:
    """log(mean^2), finite where it is 0: log_sigma2 = log_alpha + log_square(mean)."""
    return mean.square().clamp_min(_SMALLEST_SQUARE).log()


def mean_square(tensor: Tensor, mask: Tensor | None = None) -> float:
    """Of all elements, or of those that are kept; 0 where none is."""
    squares = tensor.detach().double().square()
    if mask is None:
        return float(squares.mean())
    return float((squares * mask).sum() / mask.double().sum().clamp_min(1.0))
