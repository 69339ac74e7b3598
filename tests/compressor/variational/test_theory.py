"""The steps from dropout to sparsity, run: binary and Gaussian dropout of fixed rate, the prior that fits them, the cost of noise."""

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from onnx import load
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor, nn

from compressor.config import Prior
from compressor.graph.gaussian import GaussianValue
from compressor.graph.module import OnnxModule
from compressor.training.readout import Readout
from compressor.variational.dropout import BinaryDropout, GaussianDropout
from compressor.variational.elbo import NegativeElbo
from compressor.variational.kl import kl, total_kl
from compressor.variational.posterior import Posterior
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.variational.test_kl import expected_log_magnitude

READOUT = Readout("scores", 10)


def weights_of(module: OnnxModule) -> dict[str, Tensor]:
    tensors = module.tensors()
    return {name: tensors[name] for name in module.weight_names}


# Binary and Gaussian dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_binary_dropout_and_gaussian_dropout_of_alpha_p_over_1_minus_p_have_equal_first_two_moments(monkeypatch, rate):
    """Binary dropout by all of its masks, so the sums are exact; the noise of the other by eps = 0 and eps = 1, its mean and deviation."""
    module = OnnxModule(
        model_of([node("Gemm", ["x", "w", "b"], "y")], {"x": ["n", 6]}, {"y": ["n", 3]}, {"w": values(6, 3), "b": values(3)})
    )
    x = torch.from_numpy(values(5, 6, seed=1))
    masks = torch.tensor(list(product([0.0, 1.0], repeat=6)))
    probabilities = (rate ** (6 - masks.sum(1)) * (1 - rate) ** masks.sum(1)).double()
    outputs = torch.stack([module(x * mask / (1 - rate)) for mask in masks]).double()
    mean = torch.tensordot(probabilities, outputs, dims=1)
    variance = torch.tensordot(probabilities, (outputs - mean).square(), dims=1)
    dropped = GaussianDropout(weights_of(module), rate / (1 - rate)).values()

    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    gaussian_mean = module(x, values=dropped)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    deviation = module(x, values=dropped) - gaussian_mean
    torch.testing.assert_close(gaussian_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(deviation.double().square(), variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_draws_of_binary_dropout_have_the_moments_of_the_gaussian_one(rate):
    weights = {"w": torch.tensor([[1.0, -2.0, 0.5]])}
    torch.manual_seed(0)
    draws = torch.stack([BinaryDropout(weights, rate).values()["w"] for _ in range(20_000)])
    gaussian = GaussianDropout(weights, rate / (1 - rate)).values()["w"]
    torch.testing.assert_close(draws.mean(0), gaussian.mean, rtol=0.06, atol=0)
    torch.testing.assert_close(draws.var(0), gaussian.var, rtol=0.06, atol=0)


def test_noise_of_any_fixed_rate_costs_likelihood(digits_job):
    """Why a rate cannot be fitted by likelihood alone: of all rates, none at all is the likeliest."""
    module = OnnxModule(load(digits_job.model)).eval()
    x, labels = (torch.from_numpy(part) for part in digits_job.rows["train"])
    costs = []
    for alpha in (0.0, 0.02, 0.1, 0.5, 2.0):
        torch.manual_seed(0)
        drawn = GaussianDropout(weights_of(module), alpha).values()
        with torch.no_grad():
            costs.append(np.mean([float(READOUT.mean_nll(module(x, values=drawn, logits=True), labels)) for _ in range(10)]))
    assert all(higher > 1.05 * lower for lower, higher in pairwise(costs))


# The log-uniform prior


def energy(mean: float, alpha: float) -> float:
    """-entropy + E log|w| of N(mean, alpha mean^2), in nats: the KL to 1/|w| up to its constant."""
    sigma = np.sqrt(alpha) * mean
    return expected_log_magnitude(mean, sigma) - norm.entropy(mean, sigma)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 7.0])
def test_kl_of_gaussian_dropout_under_the_log_uniform_prior_does_not_depend_on_the_mean(alpha):
    means = np.array([1e-3, 0.2, 1.0, 50.0])
    by_quadrature = np.array([energy(mean, alpha) for mean in means])
    np.testing.assert_allclose(by_quadrature, by_quadrature[0], atol=1e-6)
    for prior in ("log_uniform", "log_uniform_exact"):
        found = [float(total_kl(prior, *tensors_of(mean, np.log(alpha * mean**2)))) for mean in means]
        np.testing.assert_allclose(found, found[0], rtol=1e-12)
    # Under a prior with a scale of its own it does: a standard normal.
    normal = 0.5 * ((1 + alpha) * means**2 - 1 - np.log(alpha * means**2))
    assert np.ptp(normal) > 5


def tensors_of(mean: float, log_sigma2: float) -> tuple[Tensor, Tensor]:
    return torch.tensor([mean], dtype=torch.float64), torch.tensor([log_sigma2], dtype=torch.float64)


@pytest.mark.parametrize("prior", ["log_uniform", "log_uniform_exact"])
@pytest.mark.parametrize("unit", [1.0, 0.37, 2.54])
def test_the_prior_that_the_kl_implies_is_scale_invariant_and_has_benfords_first_digits(prior: Prior, unit):
    """For a narrow posterior, KL + entropy is -log p(w); in any unit, the first digit d of such w has probability log10(1 + 1/d)."""

    def density(w: float) -> float:
        log_sigma = np.log(1e-6)
        value = float(kl(prior, torch.tensor(2 * (log_sigma - np.log(w)), dtype=torch.float64)))
        return np.exp(-value - log_sigma)

    decade = np.array([quad(density, unit * digit, unit * (digit + 1), epsrel=1e-10)[0] for digit in range(1, 10)])
    np.testing.assert_allclose(decade / decade.sum(), np.log10(1 + 1 / np.arange(1, 10)), atol=1e-6)


# Likelihood against KL


def fitted_log_alpha(beta: float) -> Tensor:
    """Four weights with z scores of 2 to 5, whose likelihood is Gaussian with variance 1, from log_alpha = 0 on."""
    z = torch.tensor([2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    mean = nn.Parameter(z.clone())
    posterior = Posterior({"w": mean}, 0.0)
    negative_elbo = NegativeElbo(posterior, "ard", num_data=10)
    optimizer = torch.optim.Adam([mean, posterior.log_sigma2["w"]], 0.05, betas=(0.9, 0.9))  # soon forgets how steep it was
    for _ in range(600):
        optimizer.zero_grad()
        negative_elbo.backward(((mean - z).square() + posterior.log_sigma2["w"].exp()).sum() / 2 / 10, beta)
        optimizer.step()
        posterior.clamp_()
    return posterior.log_alpha()["w"]


def test_without_the_kl_alpha_falls_to_0_as_far_as_it_is_allowed():
    assert fitted_log_alpha(beta=0.0).max() < -14  # the floor is at -16 of a weight of typical size
    assert fitted_log_alpha(beta=1.0).min() > -4


# The additive and the multiplicative form


@pytest.mark.parametrize(("log_alpha", "ratio"), [(1.0, 1.4), (2.0, 2.5), (3.0, 5.0)])
def test_gradient_of_the_mean_has_less_variance_in_the_additive_form(digits_job, log_alpha, ratio):
    """Both forms draw the same outputs from the same eps; only the additive one keeps eps out of d w / d mean. It matters more, the
    larger alpha is, and so decides whether a rate can reach infinity. Measured: 1.6, 3.0 and 7.3 times less."""
    module = OnnxModule(load(digits_job.model)).eval()
    x, labels = (torch.from_numpy(part[:100]) for part in digits_job.rows["train"])
    tensors, alpha = module.tensors(), float(np.exp(log_alpha))
    posterior = Posterior({name: tensors[name] for name in module.weight_names}, 0.0)
    with torch.no_grad():
        for name, mean in posterior.means.items():
            posterior.log_sigma2[name].copy_((alpha * mean.square()).log())

    def draws(form: Callable[[], dict[str, GaussianValue]]) -> list[tuple[float, Tensor]]:
        found = []
        for seed in range(100):
            torch.manual_seed(seed)
            loss = READOUT.mean_nll(module(x, values=form(), logits=True), labels)
            gradients = torch.autograd.grad(loss, list(posterior.means.values()))
            found.append((float(loss.detach()), torch.cat([gradient.flatten() for gradient in gradients])))
        return found

    additive, multiplicative = draws(posterior.values), draws(lambda: GaussianDropout(weights_of(module), alpha).values())
    np.testing.assert_allclose([loss for loss, _ in additive], [loss for loss, _ in multiplicative], rtol=1e-5)
    variances = [float(torch.stack([grad for _, grad in found]).var(dim=0).sum()) for found in (additive, multiplicative)]
    assert variances[1] > ratio * variances[0]
