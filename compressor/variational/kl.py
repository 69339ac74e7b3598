"""KL(q(w) || p(w)) per weight, for q(w) = N(mean, sigma^2) and two sparsity priors: values, and gradients in closed form.

Both depend on the weight only through log_alpha = log(sigma^2 / mean^2). The log-uniform prior p(|w|) ~ 1/|w| is the one of
Gaussian dropout (its KL does not depend on the mean); it is improper, so its KL is defined up to the constant that makes it
tend to 0. The ARD prior N(0, lambda^2) has its variance fitted by maximum evidence, lambda^2 = mean^2 + sigma^2, which leaves
a proper KL in closed form.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from compressor.config import Prior

_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695  # Molchanov et al. 2017, arXiv:1701.05369, eq. 14
_TINY = 1e-30  # keeps 1 / mean^2 finite in float32; reached only where the gradient has underflowed to 0


def kl_ard(log_alpha: Tensor) -> Tensor:
    """KL(posterior || ARD prior) per weight at the prior variance of maximum evidence; exact.

    Args:     log_alpha: log(sigma^2 / mean^2), any shape, float32 or float64.
    Returns:  same shape and dtype, nats: 0.5 log(1 + 1 / alpha); positive, decreasing, tends to 0 as log_alpha grows.
    Source:   Kharitonov et al. 2018, arXiv:1811.00596: the KL to N(0, lambda^2), minimised over lambda^2.
    """
    return 0.5 * softplus(-log_alpha)


def kl_log_uniform(log_alpha: Tensor) -> Tensor:
    """KL(posterior || log-uniform prior) per weight, by the sigmoid approximation.

    Args:     log_alpha: log(sigma^2 / mean^2), any shape, float32 or float64.
    Returns:  same shape and dtype, nats; positive, decreasing, tends to 0 as log_alpha grows.
    Accuracy: within 0.0094 nats on [-10, 10], worst at -3.5 (tests/compressor/variational/test_kl.py).
    Source:   Molchanov et al. 2017, arXiv:1701.05369, eq. 14.
    """
    return 0.5 * softplus(-log_alpha) + _K1 * torch.sigmoid(-(_K2 + _K3 * log_alpha))


def kl(prior: Prior, log_alpha: Tensor) -> Tensor:
    """`kl_ard` or `kl_log_uniform`, by the name of the prior."""
    return {"ard": kl_ard, "log_uniform": kl_log_uniform}[prior](log_alpha)


class KLGradient:
    """Adds beta * dKL/dmean and beta * dKL/dlog_sigma2 to the gradients of one tensor, in closed form and in place.

    The KL of a weight costs two logarithms and, through autograd, a dozen temporaries of the tensor's size; its gradient
    needs neither logarithm nor graph. The two work buffers are allocated once, since at these sizes most of the time
    of a step would otherwise go into page faults.

    With r = mean^2 / sigma^2 = 1 / alpha, and s = sigmoid(k2 + k3 log_alpha):
        ARD           dKL/dlog_sigma2 = -r / (2 (1 + r))                          dKL/dmean = mean / (mean^2 + sigma^2)
        log-uniform   the same, minus k1 k3 s (1 - s)                             the same, plus 2 k1 k3 s (1 - s) / mean

    Args:
        prior: "ard" or "log_uniform".
        like: a tensor of the shape, dtype and device of the weight.
    """

    def __init__(self, prior: Prior, like: Tensor) -> None:
        self._log_uniform = prior == "log_uniform"
        self._a = torch.empty_like(like, requires_grad=False)
        self._b = torch.empty_like(like, requires_grad=False)
        self._c = torch.empty_like(like, requires_grad=False) if self._log_uniform else self._b

    @torch.no_grad()
    def add_(self, mean: Tensor, log_sigma2: Tensor, mean_grad: Tensor, log_sigma2_grad: Tensor, beta: float) -> None:
        """Args: mean, log_sigma2 and their gradients, all of one shape; the gradients are changed in place."""
        a, b = self._a, self._b
        torch.exp(log_sigma2, out=a)
        torch.mul(mean, mean, out=b)
        a.add_(b)  # mean^2 + sigma^2
        mean_grad.addcdiv_(mean, a, value=beta)
        b.div_(a)  # r / (1 + r)
        log_sigma2_grad.add_(b, alpha=-0.5 * beta)
        if self._log_uniform:
            c = self._c
            torch.mul(mean, mean, out=b).add_(_TINY)
            torch.log(b, out=a)
            torch.sub(log_sigma2, a, out=a).mul_(_K3).add_(_K2)
            torch.sigmoid(a, out=c)
            torch.sigmoid(a.neg_(), out=a)
            a.mul_(c)  # s (1 - s)
            log_sigma2_grad.add_(a, alpha=-_K1 * _K3 * beta)
            a.mul_(mean)
            mean_grad.addcdiv_(a, b, value=2.0 * _K1 * _K3 * beta)
