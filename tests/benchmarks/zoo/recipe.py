"""The default recipe over a fixed batch: the one place of this benchmark that knows how the product trains."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from compressor.graph.module import OnnxModule
from compressor.training.schedule import kl_weight
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior

NUM_STEPS = 12
_LEARNING_RATE = 1e-4
_LOG_ALPHA_INIT = -6.0  # relative to each tensor's mean square
_SMALLEST_SQUARE = 1e-12
# The first steps of a run of the usual length over a small data set, so that the KL weight is still rising.
_NUM_DATA, _RUN_STEPS, _KL_WARMUP_FRACTION, _BETA = 1_000, 4_300, 0.3, 1.0


@dataclass(frozen=True)
class RandomTarget:
    """What the fixed batch is trained towards: a class for each row, or an output of the same shape for each.

    Reads an output as the product's own readout does, but for `labels`, which are numbers of rows.
    """

    target: Tensor

    @classmethod
    def like(cls, logits: Tensor) -> "RandomTarget":
        """Classes where the output is [N, C]; normal numbers elsewhere, since images and sequences have no class."""
        generator = torch.Generator().manual_seed(0)
        if logits.dim() == 2 and logits.shape[1] > 1:
            return cls(torch.randint(logits.shape[1], (len(logits),), generator=generator))
        return cls(torch.randn(logits.shape, generator=generator))

    def mean_nll(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of the classes; the mean squared error elsewhere. A scalar."""
        target = self.target[labels]
        return mse_loss(logits, target) if target.is_floating_point() else cross_entropy(logits, target)


def fit_posterior_briefly(module: OnnxModule, inputs: Sequence[Tensor], readout: RandomTarget) -> Posterior:
    """NUM_STEPS noisy steps over all of `inputs`; changes the module's parameters, which are the posterior's means."""
    tensors = module.tensors()
    posterior = Posterior({name: tensors[name] for name in module.weight_names}, 0.0)
    for name, log_sigma2 in posterior.log_sigma2.items():
        mean_square = tensors[name].detach().square().mean().clamp_min(_SMALLEST_SQUARE)
        log_sigma2.data.fill_(_LOG_ALPHA_INIT + mean_square.log())
    negative_elbo = NegativeElbo(posterior, "ard", _NUM_DATA)
    optimizer = torch.optim.Adam([*module.parameters(), *posterior.log_sigma2.values()], _LEARNING_RATE)
    rows = torch.arange(len(readout.target))
    module.train()
    torch.manual_seed(0)
    for step in range(NUM_STEPS):
        optimizer.zero_grad(set_to_none=True)
        mean_nll = readout.mean_nll(module(*inputs, values=posterior.values(), logits=True), rows)
        negative_elbo.backward(mean_nll, kl_weight(step, _RUN_STEPS, _KL_WARMUP_FRACTION, _BETA))
        optimizer.step()
        posterior.clamp_()
    module.eval()
    return posterior
