"""KL(q(w) || p(w)) for q(w) = N(mean, sigma^2) and sparsity priors: values, and gradients in closed form.

Per weight, the KL depends on log_alpha = log(sigma^2 / mean^2) alone. The log-uniform prior p(|w|) ~ 1/|w| is the one of
Gaussian dropout (its KL does not depend on the mean); it is improper, so its KL is defined up to the constant that makes it
tend to 0. The ARD prior N(0, lambda^2) has its variance fitted by maximum evidence, lambda^2 = mean^2 + sigma^2, which leaves
a proper KL in closed form. Group ARD fits one variance for all weights of a neuron, a filter, a row of an embedding or a head.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from compressor.config import Prior
from compressor.graph.groups import GroupAxis
from compressor.variational.fusion import Fused

_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695  # Molchanov et al. 2017, arXiv:1701.05369, eq. 14
_TINY = 1e-30  # keeps 1 / mean^2 finite in float32; reached only where the gradient has underflowed to 0

# Exact value: power series up to _SERIES_END, asymptotic series from there on; both are within 1e-10 at that point.
_EULER_GAMMA = 0.57721566490153286
_SERIES_END, _SERIES_TERMS, _ASYMPTOTIC_TERMS = 30.0, 90, 10

# Exact gradient: numerator and denominator of `pull_ratio`, c[k] v^k t^(8 - k). A fit of least largest relative error (1.1e-7) to
# scipy.special.dawsn whose ends are held at 1; no coefficient is negative, so nothing cancels in float32.
_RATIO = (
    (1.0, 1.04451421, 5.53497831e-2, 1.14986807e-2, 8.47579065e-4, 5.25368721e-5, 3.9528194e-6, 2.23784791e-8, 1.06272399e-8),
    (1.0, 0.377849188, 7.01037403e-2, 8.41337542e-3, 7.66607355e-4, 4.42797706e-5, 3.90918083e-6, 1.1223252e-9, 1.06272399e-8),
)


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


def kl_log_uniform_exact(log_alpha: Tensor) -> Tensor:
    """KL(posterior || log-uniform prior) per weight: -0.5 log alpha + E log|N(1, alpha)| + (gamma + log 2) / 2.

    With u = 1 / (2 alpha) this is exp(-u) sum_k u^k / k! (1 + 1/3 + ... + 1/(2k - 1)): w^2 / sigma^2 is noncentral chi-square, a
    Poisson mixture of central ones, and E log of these is a digamma function. For large u its asymptotic series is used. For logs
    and tests: it takes a hundred passes over the tensor.

    Args:     log_alpha: log(sigma^2 / mean^2), any shape, float32 or float64.
    Returns:  same shape and dtype, nats; positive, decreasing, tends to 0 as log_alpha grows.
    Accuracy: 1e-9 nats in float64, 1e-5 relative in float32.
    Source:   derived here as said; its gradient through Dawson's function is that of Hron et al. 2017, arXiv:1711.02989.
    """
    u = 0.5 * torch.exp(-log_alpha.clamp_min(-60.0))
    small, inverse = u.clamp_max(_SERIES_END), 1.0 / u.clamp_min(_SERIES_END)
    term, harmonic, series = torch.exp(-small), 0.0, torch.zeros_like(u)
    for k in range(1, _SERIES_TERMS + 1):
        term = term * small / k
        harmonic += 1.0 / (2 * k - 1)
        series = series + harmonic * term
    term, asymptotic = torch.ones_like(u), -0.5 * log_alpha + 0.5 * (_EULER_GAMMA + math.log(2.0))
    for k in range(1, _ASYMPTOTIC_TERMS + 1):
        term = term * inverse * (k - 0.5)  # (2k - 1)!! / (2 u)^k
        asymptotic = asymptotic - term / (2 * k)
    return torch.where(u < _SERIES_END, series, asymptotic)


def kl(prior: Prior, log_alpha: Tensor) -> Tensor:
    """`kl_ard`, `kl_log_uniform` or `kl_log_uniform_exact`, by the name of the prior."""
    return {"ard": kl_ard, "log_uniform": kl_log_uniform, "log_uniform_exact": kl_log_uniform_exact}[prior](log_alpha)


def kl_group_ard(mean: Tensor, log_sigma2: Tensor, group: GroupAxis) -> Tensor:
    """KL(posterior || group ARD prior) at the prior variances of maximum evidence; exact.

    One prior N(0, s) for the n weights of a group. The KL, 0.5 sum_i (log(s / sigma_i^2) + (mean_i^2 + sigma_i^2) / s - 1), is least at
    s = mean over the group of (mean^2 + sigma^2), where the last two terms cancel: 0.5 sum_i log(s / sigma_i^2).

    Args:
        mean, log_sigma2: of one tensor, two or more dimensions.
        group: which elements are one group.
    Returns: same shape, nats; a single element may be negative, the sum over a group never is.
    Source: as kl_ard, which this is for groups of one weight; derived here as said.
    """
    second_moment = _by_group(mean.square() + log_sigma2.exp(), group)
    scale = second_moment.mean(_others(second_moment, group), keepdim=True)
    return (0.5 * (scale.log() - _by_group(log_sigma2, group))).reshape(mean.shape)


def _by_group(tensor: Tensor, group: GroupAxis) -> Tensor:
    """A view with an axis of its own for the indices that are one group."""
    return torch.unflatten(tensor, group.axis, (-1, group.size))


def _others(by_group: Tensor, group: GroupAxis) -> list[int]:
    """The axes over which a group goes."""
    return [axis for axis in range(by_group.dim()) if axis != group.axis]


def total_kl(prior: Prior, mean: Tensor, log_sigma2: Tensor, group: GroupAxis | None = None) -> Tensor:
    """KL of all weights of one tensor, in nats, a scalar: `kl`, or with groups the mean of `kl` and `kl_group_ard`.

    Why the mean. Scales of weights and of groups cannot both be fitted in one Gaussian prior: with N(0, s_g t_i), or with precisions
    that add up, the largest evidence has t_i do all the work, and what is left is ARD per weight. So the two priors stay apart. Each
    gives a lower bound of its own log evidence, E log p(y|w) - KL; the mean of two bounds is a bound of the mean of the two log
    evidences. It also is a bound under one proper prior, N(0, h) with h the harmonic mean of s_g and lambda_i^2: the normalised
    geometric mean sqrt(p_i p_g) / Z, Z <= 1, has (KL_i + KL_g) / 2 = KL(q || sqrt(p_i p_g) / Z) - log Z. The sum KL_i + KL_g counts
    the entropy of q twice and is a bound only as anything smaller is. And a group of a single weight is ARD as before under the
    mean, so beta keeps its meaning: a weight goes where the square of its z score is below beta.

    Args:
        group: as `kl_group_ard`; None: no groups.
    """
    per_weight = kl(prior, log_sigma2 - mean.square().clamp_min(_TINY).log()).double().sum()
    if group is None:
        return per_weight
    return 0.5 * (per_weight + kl_group_ard(mean, log_sigma2, group).double().sum())


def pull_ratio(log_alpha: Tensor) -> Tensor:
    """How many times harder the log-uniform prior pulls than ARD: (1 + 1/alpha) D(x) / x at x = 1 / sqrt(2 alpha), D Dawson's function.

    dKL/dlog_alpha = -x D(x) for the one and -0.5 / (1 + alpha) for the other; the ratio is 1 at both ends and 1.64 between them.

    Args:     log_alpha: log(sigma^2 / mean^2), any shape, float32 or float64.
    Returns:  same shape and dtype.
    Accuracy: 1.2e-7 relative in float64, 1e-6 in float32, everywhere.
    """
    v, t = torch.sigmoid(-log_alpha), torch.sigmoid(log_alpha)
    numerator, denominator = torch.empty_like(v), torch.empty_like(v)
    _pull_ratio(v, t, torch.empty_like(v), numerator, denominator)
    return numerator


def _pull_ratio(v: Tensor, t: Tensor, power: Tensor, out: Tensor, denominator: Tensor) -> None:
    """`pull_ratio` into `out`, from v = mean^2 / (mean^2 + sigma^2) and t = 1 - v; `power` and `denominator` are work space."""
    for result, coefficients in zip((out, denominator), _RATIO, strict=True):
        power.copy_(t)
        torch.mul(v, coefficients[-1], out=result).add_(power, alpha=coefficients[-2])
        for coefficient in coefficients[-3::-1]:
            power.mul_(t)
            result.mul_(v).add_(power, alpha=coefficient)
    out.div_(denominator)


class KLGradient:
    """Adds beta times the gradient of `total_kl` in mean and log_sigma2 to the gradients of one tensor, in closed form and in place.

    The KL of a weight costs two logarithms and, through autograd, a dozen temporaries of the tensor's size; its gradient
    needs neither logarithm nor graph. The work buffers are allocated once, since at these sizes most of the time
    of a step would otherwise go into page faults.

    With r = mean^2 / sigma^2 = 1 / alpha, and s = sigmoid(k2 + k3 log_alpha):
        ARD                 dKL/dlog_sigma2 = -r / (2 (1 + r))                    dKL/dmean = mean / (mean^2 + sigma^2)
        log-uniform         the same, minus k1 k3 s (1 - s)                       the same, plus 2 k1 k3 s (1 - s) / mean
        log-uniform, exact  that of ARD times `pull_ratio`                        that of ARD times `pull_ratio`
        group ARD           (sigma^2 / s_g - 1) / 2                               mean / s_g

    Args:
        prior: "ard", "log_uniform" or "log_uniform_exact".
        like: a tensor of the shape, dtype and device of the weight.
        group: as `kl_group_ard`; None: no groups.
        mask: 1 for a weight that counts, 0 for one that was pruned before and is in no group any more; None: all count.
        fused: by one loop that a C++ compiler makes of it, in seconds and once for all tensors; operator by operator where it fails.
    """

    def __init__(
        self, prior: Prior, like: Tensor, group: GroupAxis | None = None, mask: Tensor | None = None, *, fused: bool = False
    ) -> None:
        self._prior: Prior = prior
        self._fused = fused
        self._buffers = [
            torch.empty_like(like, requires_grad=False) for _ in range({"ard": 2, "log_uniform": 3, "log_uniform_exact": 6}[prior])
        ]
        self._group = group
        self._mask = mask
        if group is not None:
            by_group = _by_group(like.detach(), group)
            kept = torch.ones_like(by_group) if mask is None else _by_group(mask, group)
            self._share = kept.mean(_others(by_group, group), keepdim=True).clamp_min(_TINY)  # of the group that counts

    @torch.no_grad()
    def add_(
        self, mean: Tensor, log_sigma2: Tensor, mean_grad: Tensor, log_sigma2_grad: Tensor, beta: float, variance: Tensor | None = None
    ) -> None:
        """Args: mean, log_sigma2 and their gradients, which are changed in place, and exp(log_sigma2) where it is known; of one shape."""
        variance = log_sigma2.exp() if variance is None else variance
        if self._group is not None:
            beta = 0.5 * beta
            self._add_group(self._group, mean, variance, mean_grad, log_sigma2_grad, beta)
        if self._fused and _ADD(self._prior, mean, log_sigma2, variance, mean_grad, log_sigma2_grad, factor=beta):
            return
        if self._prior == "log_uniform_exact":
            self._add_exact(mean, variance, mean_grad, log_sigma2_grad, beta)
            return
        a, b = self._buffers[:2]
        torch.mul(mean, mean, out=b)
        torch.add(variance, b, out=a)  # mean^2 + sigma^2
        mean_grad.addcdiv_(mean, a, value=beta)
        log_sigma2_grad.addcdiv_(b, a, value=-0.5 * beta)  # r / (1 + r)
        if self._prior == "log_uniform":
            c = self._buffers[2]
            b.add_(_TINY)
            torch.log(b, out=a)
            torch.sub(log_sigma2, a, out=a).mul_(_K3).add_(_K2)
            torch.sigmoid(a, out=c)
            torch.sigmoid(a.neg_(), out=a)
            a.mul_(c)  # s (1 - s)
            log_sigma2_grad.add_(a, alpha=-_K1 * _K3 * beta)
            a.mul_(mean)
            mean_grad.addcdiv_(a, b, value=2.0 * _K1 * _K3 * beta)

    def _add_exact(self, mean: Tensor, variance: Tensor, mean_grad: Tensor, log_sigma2_grad: Tensor, beta: float) -> None:
        second_moment, v, t, power, ratio, denominator = self._buffers
        torch.mul(mean, mean, out=v)
        torch.add(v, variance, out=second_moment)
        v.div_(second_moment)
        torch.div(variance, second_moment, out=t)
        _pull_ratio(v, t, power, ratio, denominator)
        log_sigma2_grad.addcmul_(v, ratio, value=-0.5 * beta)
        mean_grad.addcdiv_(ratio.mul_(mean), second_moment, value=beta)

    def _add_group(self, group: GroupAxis, mean: Tensor, variance: Tensor, mean_grad: Tensor, log_sigma2_grad: Tensor, beta: float) -> None:
        relative, second_moment = self._buffers[:2]
        torch.addcmul(variance, mean, mean, out=second_moment)
        if self._mask is not None:
            second_moment.mul_(self._mask)
        moments = _by_group(second_moment, group)
        scale = moments.mean(_others(moments, group), keepdim=True).div_(self._share).clamp_min_(_TINY)  # s_g
        _by_group(mean_grad, group).addcdiv_(_by_group(mean, group), scale, value=beta)
        torch.div(_by_group(variance, group), scale, out=_by_group(relative, group))
        log_sigma2_grad.add_(relative, alpha=0.5 * beta).sub_(0.5 * beta)


def _add(
    prior: Prior, mean: Tensor, log_sigma2: Tensor, variance: Tensor, mean_grad: Tensor, log_sigma2_grad: Tensor, beta: Tensor
) -> None:
    """`KLGradient.add_` without groups as a compiler wants it: the same formulas without work buffers."""
    square = mean * mean
    inverse = 1.0 / (square + variance)
    pull, relevance = beta * mean * inverse, -0.5 * beta * square * inverse
    if prior == "log_uniform_exact":
        v, t = square * inverse, variance * inverse
        ratio = _polynomial(v, t, _RATIO[0]) / _polynomial(v, t, _RATIO[1])
        pull, relevance = pull * ratio, relevance * ratio
    if prior == "log_uniform":
        slope = _K2 + _K3 * (log_sigma2 - torch.log(square + _TINY))
        bell = _K1 * _K3 * beta * torch.sigmoid(slope) * torch.sigmoid(-slope)
        pull, relevance = pull + 2.0 * bell * mean / (square + _TINY), relevance - bell
    mean_grad.add_(pull)
    log_sigma2_grad.add_(relevance)


def _polynomial(v: Tensor, t: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """sum_k coefficients[k] v^k t^(8 - k)."""
    result, power = coefficients[-1] * v + coefficients[-2] * t, t
    for coefficient in coefficients[-3::-1]:
        power = power * t
        result = result * v + coefficient * power
    return result


_ADD = Fused(_add)
