"""The compiled loop of the KL gradient: the same numbers as operator by operator, only where it pays, and never in the way."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compressor.config import Prior
from compressor.graph.gaussian import GaussianValue
from compressor.graph.groups import GroupAxis
from compressor.variational import fusion, kl
from compressor.variational.elbo import NegativeElbo
from compressor.variational.fusion import Fused, worth_fusing
from compressor.variational.kl import KLGradient
from compressor.variational.posterior import Posterior

PRIORS: list[Prior] = ["ard", "log_uniform", "log_uniform_exact"]


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, log_sigma2, mean_grad, log_sigma2_grad = (torch.randn(30, 50, generator=generator) for _ in range(4))
    return [mean, 3 * log_sigma2 - 2, mean_grad, log_sigma2_grad]


def added(prior: Prior, group: GroupAxis | None, *, fused: bool) -> tuple[Tensor, Tensor]:
    mean, log_sigma2, mean_grad, log_sigma2_grad = weights()
    KLGradient(prior, mean, group, fused=fused).add_(mean, log_sigma2, mean_grad, log_sigma2_grad, 0.7)
    return mean_grad, log_sigma2_grad


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("group", [None, GroupAxis(0)])
def test_the_function_that_is_compiled_adds_the_same(monkeypatch: pytest.MonkeyPatch, prior: Prior, group: GroupAxis | None) -> None:
    def uncompiled(function: Callable[..., None]) -> Callable[..., None]:
        return function

    monkeypatch.setattr(fusion, "_compile", uncompiled)
    monkeypatch.setattr(kl, "_ADD", Fused(kl._add))
    torch.testing.assert_close(added(prior, group, fused=True), added(prior, group, fused=False), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("prior", PRIORS)
def test_compiled_it_adds_the_same(prior: Prior, capfd: pytest.CaptureFixture[str]) -> None:
    torch.testing.assert_close(added(prior, None, fused=True), added(prior, None, fused=False), rtol=1e-5, atol=1e-6)
    assert "not compiled" not in capfd.readouterr().err


def test_where_compiling_fails_it_goes_on_without(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def failing(_: Callable[..., None]) -> Callable[..., None]:
        raise OSError("no space left")

    monkeypatch.setattr(fusion, "_compile", failing)
    monkeypatch.setattr(kl, "_ADD", Fused(kl._add))
    for _ in range(2):
        torch.testing.assert_close(added("ard", None, fused=True), added("ard", None, fused=False), rtol=0, atol=0)
    assert capfd.readouterr().err == "not compiled, goes on without: OSError: no space left\n"


def test_compiling_must_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    large, small = torch.empty(100_000_000), torch.empty(1000)
    assert worth_fusing("ard", {"large": large, "small": small}, 4000) == {"large"}
    assert worth_fusing("ard", {"large": large, "small": small}, 100) == frozenset()
    assert worth_fusing("ard", {"large": large.to("meta")}, 4000) == frozenset()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert worth_fusing("ard", {"large": large}, 4000) == frozenset()


@pytest.mark.parametrize("masked", [False, True])
def test_known_variances_change_no_gradient(masked: bool) -> None:
    drawn = weights()
    mask = drawn[2] > 0
    gradients = []
    for known in (False, True):
        mean = torch.nn.Parameter(drawn[0] * mask if masked else drawn[0].clone())
        posterior = Posterior({"w": mean}, -2.0, {"w": mask} if masked else None)
        values: dict[str, GaussianValue] = posterior.values()
        loss = (values["w"].mean * values["w"].var.sqrt()).mean()
        NegativeElbo(posterior, "ard", 10).backward(loss, 0.5, values if known else None)
        posterior.mask_gradients_()
        assert mean.grad is not None
        gradients.append(mean.grad)
    kept = mask if masked else torch.ones_like(mask)
    torch.testing.assert_close(gradients[0][kept], gradients[1][kept])
