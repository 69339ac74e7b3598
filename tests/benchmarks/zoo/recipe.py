"""The default recipe over a fixed batch: the one place of this benchmark that knows how the product trains."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compressor.graph.module import OnnxModule
from compressor.training.fit import posterior_optimizer
from compressor.training.schedule import kl_weight
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior

NUM_STEPS = 12
_LEARNING_RATE = 1e-4
_LOG_ALPHA_INIT = -6.0  # relative to each tensor's mean square
# The first steps of a run of the usual length over a small data set, so that the KL weight is still rising.
_NUM_DATA, _RUN_STEPS, _KL_WARMUP_FRACTION, _BETA = 1_000, 4_300, 0.3, 1.0

Loss = Callable[[Tensor], Tensor]  # output -> scalar, mean over the rows


def fit_posterior_briefly(module: OnnxModule, inputs: Sequence[Tensor], loss: Loss) -> Posterior:
    """NUM_STEPS noisy steps over all of `inputs`; changes the module's parameters, which are the posterior's means."""
    tensors = module.tensors()
    posterior = Posterior({name: tensors[name] for name in module.weight_names}, 0.0)
    for name, log_sigma2 in posterior.log_sigma2.items():
        mean_square = float(tensors[name].detach().square().mean())
        log_sigma2.data.fill_(_LOG_ALPHA_INIT + torch.tensor(max(mean_square, 1e-12)).log())
    negative_elbo = NegativeElbo(posterior, "ard", _NUM_DATA)
    optimizer = posterior_optimizer(module, posterior)
    for group in optimizer.param_groups:
        group["lr"] = _LEARNING_RATE
    module.train()
    torch.manual_seed(0)
    for step in range(NUM_STEPS):
        optimizer.zero_grad(set_to_none=True)
        mean_nll = loss(module(*inputs, values=posterior.values(), logits=True))
        negative_elbo.backward(mean_nll, kl_weight(step, _RUN_STEPS, _KL_WARMUP_FRACTION, _BETA))
        optimizer.step()
        posterior.clamp_()
    module.eval()
    return posterior
