"""The evidence lower bound: the only place where N, the batch mean, beta and the KL meet.

    negative_elbo = N * mean over the batch of -log p(y | x, w) + beta * sum over the weights of KL(q(w) || p(w))      [nats]

The likelihood term is scaled up to the whole data set, rather than the KL down to one row: the gradient of a nearly dead weight,
some 0.02 nats, would otherwise be 1e-8 for a million rows, as small as Adam's epsilon, and pruning would stall.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.config import Prior
from compressor.graph.gaussian import GaussianValue
from compressor.graph.groups import GroupAxis
from compressor.variational.fusion import worth_fusing
from compressor.variational.kl import KLGradient, total_kl
from compressor.variational.posterior import Posterior


class NegativeElbo:
    """The loss of variational training.

    Args:
        posterior: the weights' q(w).
        prior: over each weight.
        num_data: N, the number of training rows that the likelihood stands for.
        group_axes: where a weight's groups lie, by name; a group ARD prior stands beside `prior` for these weights.
        num_steps: how many calls of `backward` there will be: the KL's part of many is compiled, where that is worth it.
    """

    def __init__(
        self, posterior: Posterior, prior: Prior, num_data: int, group_axes: Mapping[str, GroupAxis] | None = None, num_steps: int = 0
    ) -> None:
        self._posterior = posterior
        self._prior: Prior = prior
        self._num_data = num_data
        self._group_axes = {} if group_axes is None else dict(group_axes)
        fused = worth_fusing(prior, posterior.means, num_steps)
        self._kl_gradients = {
            name: KLGradient(prior, mean, self._group_axes.get(name), posterior.masks.get(name), fused=name in fused)
            for name, mean in posterior.means.items()
        }

    def backward(self, mean_nll: Tensor, beta: float, values: Mapping[str, GaussianValue] | None = None) -> None:
        """Adds the gradient of the negative ELBO to every parameter.

        Args:
            mean_nll: scalar, mean over the batch of the negative log-likelihood under weights drawn from the posterior, nats.
            beta: weight of the KL.
            values: `Posterior.values()` that these weights were drawn from, whose variances need not be computed again.
        """
        (self._num_data * mean_nll).backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        if beta == 0.0:
            return
        for name, mean in self._posterior.means.items():
            log_sigma2 = self._posterior.log_sigma2[name]
            if mean.grad is None or log_sigma2.grad is None:
                raise RuntimeError("a variational weight took no part in the likelihood")
            # That of a weight that was pruned before is 0, and 0 / 0 its gradient.
            variance = None if values is None or self._posterior.masks else values[name].var.detach()
            self._kl_gradients[name].add_(mean, log_sigma2, mean.grad, log_sigma2.grad, beta, variance)

    @torch.no_grad()
    def kl_nats(self) -> float:
        """KL(posterior || prior) in nats, summed over all weights; for logging, not part of a step."""
        return sum(
            float(total_kl(self._prior, mean, self._posterior.log_sigma2[name], self._group_axes.get(name)))
            for name, mean in self._posterior.means.items()
        )
