"""The KL divergences against quadrature, minimisation and special functions that share no constant with the code."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import dawsn, digamma
from scipy.stats import norm, poisson
from torch.distributions import Normal, kl_divergence

from compressor.graph.groups import GroupAxis
from compressor.variational.kl import KLGradient, kl, kl_ard, kl_group_ard, kl_log_uniform, kl_log_uniform_exact, pull_ratio, total_kl

GRID = np.linspace(-10, 10, 81)
PRIORS = ["ard", "log_uniform", "log_uniform_exact"]


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


def test_exact_log_uniform_is_quadrature():
    exact = [exact_kl_log_uniform(x) for x in GRID]
    np.testing.assert_allclose(kl_log_uniform_exact(torch.tensor(GRID)).numpy(), exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_exact_log_uniform_is_the_expected_digamma_function_of_a_noncentral_chi_square(dtype, rtol):
    """E log(w^2 / sigma^2) as a mixture over k ~ Poisson(u) of E log chi^2 with 1 + 2k degrees of freedom, log 2 + digamma(1/2 + k)."""
    log_alpha = torch.linspace(-9, 12, 211, dtype=dtype)
    u = 0.5 * np.exp(-log_alpha.double().numpy())[:, None]
    k = np.maximum(0, np.floor(u - 14 * np.sqrt(u) - 10)) + np.arange(3000)
    expected = 0.5 * (poisson.pmf(k, u) * (digamma(0.5 + k) - digamma(0.5))).sum(axis=1)
    np.testing.assert_allclose(kl_log_uniform_exact(log_alpha).double().numpy(), expected, rtol=rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1.3e-7), (torch.float32, 1e-6)])
def test_pull_ratio_is_dawsons_function_over_the_pull_of_ard(dtype, rtol):
    log_alpha = torch.linspace(-35, 35, 7001, dtype=dtype)
    exact_log_alpha = log_alpha.double().numpy()
    root = np.sqrt(0.5 * np.exp(-exact_log_alpha))
    expected = root * dawsn(root) * 2 * (1 + np.exp(exact_log_alpha))
    np.testing.assert_allclose(pull_ratio(log_alpha).double().numpy(), expected, rtol=rtol)
    ends = pull_ratio(torch.tensor([-1e4, 1e4], dtype=dtype))
    torch.testing.assert_close(ends, torch.ones_like(ends))
    assert float(pull_ratio(log_alpha).max()) == pytest.approx(1.64, abs=0.01)


def test_exact_gradient_is_the_difference_quotient_of_quadrature():
    """The two share no line of code: one is a rational function, the other an integral."""
    log_sigma2, step = torch.tensor(GRID[8::4]), 1e-3
    mean_grad, log_sigma2_grad = torch.zeros_like(log_sigma2), torch.zeros_like(log_sigma2)
    KLGradient("log_uniform_exact", log_sigma2).add_(torch.ones_like(log_sigma2), log_sigma2, mean_grad, log_sigma2_grad, beta=1.0)
    slope = np.array([(exact_kl_log_uniform(x + step) - exact_kl_log_uniform(x - step)) / (2 * step) for x in log_sigma2.tolist()])
    np.testing.assert_allclose(log_sigma2_grad.numpy(), slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean_grad.numpy(), -2 * slope, rtol=1e-5, atol=2e-6)


def test_ard_is_the_gaussian_kl_minimised_over_the_prior_variance():
    for log_alpha in GRID[::8]:
        posterior = Normal(torch.tensor(1.0, dtype=torch.float64), torch.tensor(np.exp(log_alpha / 2)))

        def to_prior(log_lambda: float, posterior: Normal = posterior) -> float:
            prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(np.exp(log_lambda)))
            return float(kl_divergence(posterior, prior))

        best = minimize_scalar(to_prior, bounds=(-15, 15), method="bounded", options={"xatol": 1e-9})
        assert float(kl_ard(torch.tensor(log_alpha))) == pytest.approx(best.fun, abs=1e-8)


@pytest.mark.parametrize("prior", PRIORS)
def test_kl_is_positive_decreasing_and_vanishes(prior):
    values = kl(prior, torch.linspace(-30, 60, 2000, dtype=torch.float64))
    assert torch.isfinite(values).all()
    assert (values > 0).all()
    assert (values.diff() < 0).all()
    assert values[-1] < 1e-12


def drawn_weights(dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of very different sizes, and variances, both with gradients."""
    generator = torch.Generator().manual_seed(1)
    scales = torch.logspace(-6, 1, int(np.prod(shape)), dtype=dtype).reshape(shape)
    mean = (torch.randn(shape, generator=generator, dtype=dtype) * scales).requires_grad_()
    return mean, (torch.rand(shape, generator=generator, dtype=dtype) * 16 - 14).requires_grad_()


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("group", [None, GroupAxis(0), GroupAxis(1), GroupAxis(2), GroupAxis(0, 5), GroupAxis(1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_form_gradient_is_the_gradient_of_the_value(prior, group, dtype):
    mean, log_sigma2 = drawn_weights(dtype, (20, 10, 20))
    total_kl(prior, mean, log_sigma2, group).backward()
    assert mean.grad is not None
    assert log_sigma2.grad is not None
    mean_grad, log_sigma2_grad = torch.full_like(mean, 0.25), torch.full_like(mean, -0.5)
    KLGradient(prior, mean, group).add_(mean, log_sigma2, mean_grad, log_sigma2_grad, beta=0.7)
    tolerance = {"rtol": 2e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-8, "atol": 1e-12}
    if prior == "log_uniform_exact" and dtype == torch.float64:  # whose gradient is a fit; with groups, parts of 0.5 cancel
        tolerance = {"rtol": 1.3e-7, "atol": 1e-7}
    torch.testing.assert_close(mean_grad - 0.25, 0.7 * mean.grad, **tolerance)
    torch.testing.assert_close(log_sigma2_grad + 0.5, 0.7 * log_sigma2.grad, **tolerance)


def test_group_ard_is_the_gaussian_kl_minimised_over_one_prior_variance_for_each_group():
    mean, log_sigma2 = (tensor.detach() for tensor in drawn_weights(torch.float64, (3, 4, 5)))
    for axis in range(3):
        found = kl_group_ard(mean, log_sigma2, GroupAxis(axis)).movedim(axis, 0).flatten(1).sum(1)
        groups = zip(mean.movedim(axis, 0), log_sigma2.movedim(axis, 0), strict=True)
        for value, (group_mean, group_log_sigma2) in zip(found, groups, strict=True):
            posterior = Normal(group_mean, (group_log_sigma2 / 2).exp())

            def to_prior(log_scale: float, posterior: Normal = posterior) -> float:
                prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(np.exp(log_scale / 2)))
                return float(kl_divergence(posterior, prior).sum())

            best = minimize_scalar(to_prior, bounds=(-20, 10), method="bounded", options={"xatol": 1e-9})
            assert float(value) == pytest.approx(best.fun, rel=1e-10)
            assert float(value) > 0


def test_groups_of_one_weight_are_ard_per_weight_in_value_and_gradient():
    mean, log_sigma2 = (tensor.detach() for tensor in drawn_weights(torch.float64, (50, 1)))
    torch.testing.assert_close(total_kl("ard", mean, log_sigma2, GroupAxis(0)), total_kl("ard", mean, log_sigma2))
    gradients = [torch.zeros(2, 50, 1, dtype=torch.float64) for _ in range(2)]
    for group, (mean_grad, log_sigma2_grad) in zip((GroupAxis(0), None), gradients, strict=True):
        KLGradient("ard", mean, group).add_(mean, log_sigma2, mean_grad, log_sigma2_grad, beta=1.0)
    torch.testing.assert_close(*gradients)


def test_a_head_is_one_group_of_all_its_rows():
    mean, log_sigma2 = (tensor.detach() for tensor in drawn_weights(torch.float64, (12, 5)))
    heads = [part.reshape(1, -1) for tensor in (mean, log_sigma2) for part in tensor.split(4)]
    expected = torch.cat([kl_group_ard(*pair, GroupAxis(0)).view(4, 5) for pair in zip(heads[:3], heads[3:], strict=True)])
    torch.testing.assert_close(kl_group_ard(mean, log_sigma2, GroupAxis(0, 4)), expected)


def test_weights_that_were_pruned_are_in_no_group():
    mean, log_sigma2 = (tensor.detach() for tensor in drawn_weights(torch.float64, (3, 6)))
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    mean, kept = mean * mask, mask.bool()
    mean_grad, log_sigma2_grad = torch.zeros(2, 3, 6, dtype=torch.float64)
    KLGradient("ard", mean, GroupAxis(0), mask).add_(mean, log_sigma2, mean_grad, log_sigma2_grad, beta=1.0)
    for row in range(2):
        one = (mean[row, kept[row]].view(1, -1), log_sigma2[row, kept[row]].view(1, -1))
        alone = [torch.zeros_like(one[0]) for _ in range(2)]
        KLGradient("ard", one[0], GroupAxis(0)).add_(*one, *alone, beta=1.0)
        torch.testing.assert_close(mean_grad[row, kept[row]], alone[0].flatten())
        torch.testing.assert_close(log_sigma2_grad[row, kept[row]], alone[1].flatten())
    assert not mean_grad[~kept].any()
    assert torch.isfinite(log_sigma2_grad).all()


def test_with_groups_the_kl_is_a_bound_under_one_proper_prior():
    """It is at least the KL to N(0, h), h the harmonic mean of the variances that the two priors fit: nothing is gained by improperness."""
    mean, log_sigma2 = (tensor.detach() for tensor in drawn_weights(torch.float64, (8, 9)))
    second_moment = mean.square() + log_sigma2.exp()
    harmonic = 2 / (1 / second_moment + 1 / second_moment.mean(1, keepdim=True))
    proper = kl_divergence(Normal(mean, (log_sigma2 / 2).exp()), Normal(torch.zeros_like(mean), harmonic.sqrt())).sum()
    assert float(total_kl("ard", mean, log_sigma2, GroupAxis(0))) >= float(proper) > 0


@pytest.mark.parametrize("prior", PRIORS)
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
