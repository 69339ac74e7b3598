"""The KL divergences against quadrature, minimisation and special functions that share no constant with the code."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import dawsn
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from compressor.variational.kl import KLGradient, kl, kl_ard, kl_log_uniform

GRID = np.linspace(-10, 10, 81)


def expected_log_magnitude(mean: float, sigma: float) -> float:
    """E log|w| for w ~ N(mean, sigma^2) by adaptive quadrature over t = log|w|, where the integrand has no singularity."""

    def one_side(sign: float) -> float:
        high = np.log(abs(mean) + 12 * sigma)
        peak = np.log(abs(mean) + 1e-3 * sigma)
        points = sorted({-40.0, min(peak - 5 * sigma, high), min(peak, high), high})
        return sum(
            quad(lambda t: norm.pdf(sign * np.exp(t), mean, sigma) * t * np.exp(t), a, b, limit=400, epsabs=1e-10)[0]
            for a, b in pairwise(points)
        )

    return one_side(1.0) + one_side(-1.0)


def exact_kl_log_uniform(log_alpha: float) -> float:
    """-entropy + E log|w|, up to the constant that makes it 0 for infinite alpha, where w is sigma times a standard normal."""
    sigma = np.exp(log_alpha / 2)
    return -np.log(sigma) + expected_log_magnitude(1.0, sigma) - expected_log_magnitude(0.0, 1.0)


def test_log_uniform_is_within_its_stated_accuracy_of_quadrature():
    exact = np.array([exact_kl_log_uniform(x) for x in GRID])
    approximate = kl_log_uniform(torch.tensor(GRID)).numpy()
    error = np.abs(approximate - exact)
    assert error.max() < 0.0094 + 1e-4
    assert GRID[error.argmax()] == pytest.approx(-3.5, abs=0.3)


def test_ard_is_the_gaussian_kl_minimised_over_the_prior_variance():
    for log_alpha in GRID[::8]:
        posterior = Normal(torch.tensor(1.0, dtype=torch.float64), torch.tensor(np.exp(log_alpha / 2)))

        def to_prior(log_lambda: float, posterior: Normal = posterior) -> float:
            prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(np.exp(log_lambda)))
            return float(kl_divergence(posterior, prior))

        best = minimize_scalar(to_prior, bounds=(-15, 15), method="bounded", options={"xatol": 1e-9})
        assert float(kl_ard(torch.tensor(log_alpha))) == pytest.approx(best.fun, abs=1e-8)


@pytest.mark.parametrize("prior", ["ard", "log_uniform"])
def test_kl_is_positive_decreasing_and_vanishes(prior):
    values = kl(prior, torch.linspace(-30, 60, 2000, dtype=torch.float64))
    assert torch.isfinite(values).all()
    assert (values > 0).all()
    assert (values.diff() < 0).all()
    assert values[-1] < 1e-12


@pytest.mark.parametrize("prior", ["ard", "log_uniform"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_form_gradient_is_the_gradient_of_the_value(prior, dtype):
    generator = torch.Generator().manual_seed(1)
    mean = (torch.randn(4000, generator=generator, dtype=dtype) * torch.logspace(-6, 1, 4000, dtype=dtype)).requires_grad_()
    log_sigma2 = (torch.rand(4000, generator=generator, dtype=dtype) * 16 - 14).requires_grad_()
    kl(prior, log_sigma2 - mean.square().log()).sum().backward()
    assert mean.grad is not None
    assert log_sigma2.grad is not None
    mean_grad, log_sigma2_grad = torch.full_like(mean, 0.25), torch.full_like(mean, -0.5)
    KLGradient(prior, mean).add_(mean, log_sigma2, mean_grad, log_sigma2_grad, beta=0.7)
    tolerance = {"rtol": 2e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-8, "atol": 1e-12}
    torch.testing.assert_close(mean_grad, 0.25 + 0.7 * mean.grad, **tolerance)
    torch.testing.assert_close(log_sigma2_grad, -0.5 + 0.7 * log_sigma2.grad, **tolerance)


@pytest.mark.parametrize("prior", ["ard", "log_uniform"])
def test_closed_form_gradient_is_finite_at_exact_zeros_and_extremes(prior):
    mean = torch.tensor([0.0, -0.0, 1e-30, -1e-20, 1e4, -1e4])
    for log_sigma2 in (-20.0, 0.0, 5.0):
        mean_grad, log_sigma2_grad = torch.zeros(6), torch.zeros(6)
        KLGradient(prior, mean).add_(mean, torch.full((6,), log_sigma2), mean_grad, log_sigma2_grad, beta=1.0)
        assert torch.isfinite(mean_grad).all()
        assert torch.isfinite(log_sigma2_grad).all()
        assert mean_grad[:2].abs().max() == 0


def test_log_uniform_gradient_is_near_the_exact_one_through_dawsons_function():
    log_sigma2 = torch.tensor(GRID)
    gradient = torch.zeros_like(log_sigma2)
    KLGradient("log_uniform", log_sigma2).add_(torch.ones_like(log_sigma2), log_sigma2, torch.zeros_like(log_sigma2), gradient, beta=1.0)
    root = np.sqrt(0.5 * np.exp(-GRID))
    np.testing.assert_allclose(gradient.numpy(), -root * dawsn(root), atol=0.0139)
