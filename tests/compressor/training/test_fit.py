"""The likelihood's pull on log_alpha without the KL, and the gradient of the whole objective against autograd."""

import pytest
import torch
from onnx import load
from torch.nn.functional import cross_entropy

from compressor.errors import Diverged
from compressor.graph.module import OnnxModule
from compressor.training.fit import FineTuneOptions, FitOptions, fine_tune, fit_posterior, posterior_optimizer
from compressor.training.objective import Objective
from compressor.training.readout import Readout
from compressor.training.rows import Rows, count_correct, num_batches, shuffled_batches
from compressor.training.steps import tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.kl import kl
from compressor.variational.posterior import Posterior


@pytest.fixture
def module(digits_job) -> OnnxModule:
    return OnnxModule(load(digits_job.model))


@pytest.fixture
def rows(digits_job) -> Rows:
    x, y = digits_job.rows["train"]
    return Rows((torch.from_numpy(x),), torch.from_numpy(y), lambda inputs: inputs)


READOUT = Readout("scores", 10)


def posterior_of(module: OnnxModule, log_alpha: float) -> Posterior:
    weights = module.tensors()
    return Posterior({name: weights[name] for name in module.weight_names}, log_alpha)


def fit(module: OnnxModule, posterior: Posterior, rows: Rows, beta: float, rate: float = 1e-2) -> None:
    options = FitOptions(beta, 0.0, 1e-2, rate, batch_size=64, epochs=20, seed=0)
    negative_elbo = NegativeElbo(posterior, "ard", len(rows))
    optimizer = posterior_optimizer(module, posterior, tensor_scales(module), options)
    fit_posterior(module, posterior, negative_elbo, Objective(READOUT), optimizer, rows, options, 0, lambda _: None, lambda *_: None)


def mean_log_alpha(posterior: Posterior) -> float:
    return float(torch.cat([values.flatten() for values in posterior.log_alpha().values()]).clamp(-20, 20).mean())


def test_without_the_kl_the_data_term_alone_drives_log_alpha_down(module, rows):
    """Noise only ever costs likelihood, so a rate cannot be fitted by likelihood alone: it falls; the KL is what makes it rise."""
    without, start = posterior_of(module, 0.0), mean_log_alpha(posterior_of(module, 0.0))
    fit(module, without, rows, beta=0.0)
    fallen = mean_log_alpha(without)
    assert fallen < start - 0.1
    fit(module, without, rows, beta=1.0)
    assert mean_log_alpha(without) > fallen + 1.0


@pytest.mark.parametrize("prior", ["ard", "log_uniform", "log_uniform_exact"])
def test_backward_is_the_gradient_of_n_times_the_mean_plus_beta_times_the_summed_kl(module, rows, prior):
    posterior = posterior_of(module, -1.0)
    inputs, labels = rows.take(slice(0, 64))
    parameters = [*module.parameters(), *posterior.log_sigma2.values()]

    def mean_nll() -> torch.Tensor:
        torch.manual_seed(3)
        return cross_entropy(module(*inputs, values=posterior.values(), logits=True), labels)

    NegativeElbo(posterior, prior, num_data=1077).backward(mean_nll(), beta=0.3)
    found = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    divergence = sum(kl(prior, posterior.log_sigma2[name] - mean.square().log()).sum() for name, mean in posterior.means.items())
    expected = torch.autograd.grad(1077 * mean_nll() + 0.3 * divergence, parameters)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_fine_tuning_leaves_what_is_masked_at_zero_and_improves_the_rest(module, rows):
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(weight.shape, generator=generator) < 0.3 for name, weight in module.tensors().items() if weight.ndim == 2}
    fine_tune(module, masks, Objective(READOUT), rows, FineTuneOptions(1e-2, 64, 0, 0), lambda _: None)
    before = count_correct(module, READOUT, rows, 64)
    fine_tune(module, masks, Objective(READOUT), rows, FineTuneOptions(1e-2, 64, 5, 0), lambda _: None)
    assert count_correct(module, READOUT, rows, 64) > before
    for name, mask in masks.items():
        weight = module.tensors()[name]
        assert not weight[~mask].any()
        assert weight[mask].all()


def test_a_loss_that_is_no_number_is_an_error_with_a_remedy(module, rows):
    with torch.no_grad():
        next(iter(module.tensors().values())).fill_(float("nan"))
    with pytest.raises(Diverged) as error:
        fit(module, posterior_of(module, -4.0), rows, beta=1.0)
    assert error.value.param == "step_size"


def test_batches_are_all_rows_once_in_an_order_given_by_the_seed(rows):
    def labels_of(seed: int) -> list[torch.Tensor]:
        return [batch.labels for batch in shuffled_batches(rows, 64, seed)]

    first, again, other = labels_of(1), labels_of(1), labels_of(2)
    assert len(first) == num_batches(rows, 64) == 17  # 1077 = 16 * 64 + 53, and 53 is more than half a batch
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(other))
    assert torch.equal(torch.cat(first).bincount(), rows.labels.bincount())


def test_a_small_last_batch_is_left_out_unless_it_is_the_only_one(rows):
    assert num_batches(rows, 100) == 11
    assert num_batches(rows, 700) == 2
    assert num_batches(rows, 1000) == 1
    assert num_batches(rows, 10_000) == 1
