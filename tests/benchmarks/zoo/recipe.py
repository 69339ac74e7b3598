"""The default recipe over a fixed batch: the one place of this benchmark that knows how the product trains."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from compressor.config import CompressionConfig
from compressor.graph.module import OnnxModule
from compressor.training.fit import FitOptions, posterior_optimizer
from compressor.training.rows import Rows
from compressor.training.schedule import kl_weight
from compressor.training.steps import Probe, tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior

NUM_STEPS = 12
# As in the first steps of a run of the usual length over a small data set, so that the KL weight is still rising.
_NUM_DATA, _RUN_STEPS, _BETA = 1_000, 4_300, 1.0


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

    def guessing_nll(self, labels: Tensor) -> float:
        """`mean_nll` of the best constant output."""
        target = self.target[labels]
        if target.is_floating_point():
            return float(target.var(correction=0))
        shares = target.bincount().double() / len(target)
        return float(-torch.xlogy(shares, shares).sum())


def fit_posterior_briefly(module: OnnxModule, inputs: Sequence[Tensor], readout: RandomTarget) -> Posterior:
    """NUM_STEPS noisy steps over all of `inputs`; changes the module's parameters, which are the posterior's means."""
    config = CompressionConfig()
    num_rows = len(readout.target)
    rows = torch.arange(num_rows)
    probe = Probe(module, readout, Rows(tuple(inputs), rows, lambda part: part), num_rows, config.seed)
    log_alpha_init = probe.log_alpha()
    options = FitOptions(
        beta=_BETA,
        kl_warmup_fraction=config.kl_warmup_fraction,
        step_size=probe.step_size(log_alpha_init),
        learning_rate_log_sigma2=config.learning_rate_log_sigma2,
        batch_size=num_rows,
        epochs=_RUN_STEPS,
        seed=config.seed,
    )
    tensors = module.tensors()
    posterior = Posterior({name: tensors[name] for name in module.weight_names}, log_alpha_init)
    negative_elbo = NegativeElbo(posterior, config.prior, _NUM_DATA)
    optimizer = posterior_optimizer(module, posterior, tensor_scales(module), options)
    module.train()
    torch.manual_seed(0)
    for step in range(NUM_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        optimizer.zero_grad(set_to_none=True)
        mean_nll = readout.mean_nll(module(*inputs, values=posterior.values(), logits=True), rows)
        negative_elbo.backward(mean_nll, kl_weight(step, _RUN_STEPS, config.kl_warmup_fraction, _BETA))
        optimizer.step()
        posterior.clamp_()
    module.eval()
    return posterior
