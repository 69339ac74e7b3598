"""Step sizes: the scale of a tensor is no scale of its training, and the probe finds what a network bears."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from onnx import load

from compressor.graph.module import OnnxModule
from compressor.graph.write import write_arrays
from compressor.training.fit import FitOptions, fit_posterior, posterior_optimizer
from compressor.training.objective import Objective
from compressor.training.readout import Readout
from compressor.training.rows import Rows, count_correct
from compressor.training.steps import LOG_ALPHAS, STEP_SIZES, Probe, tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior

READOUT = Readout("scores", 10)


@pytest.fixture
def rows(digits_job) -> Rows:
    x, y = digits_job.rows["train"]
    return Rows((torch.from_numpy(x),), torch.from_numpy(y), lambda inputs: inputs)


def rescaled(digits_job, factors: Mapping[str, float]) -> OnnxModule:
    """The digits network with its tensors multiplied; a factor of one layer is taken back by the next, since ReLU lets it through."""
    proto = load(digits_job.model)
    tensors = OnnxModule(proto).tensors()
    return OnnxModule(write_arrays(proto, {name: tensors[name].detach().numpy() * factors.get(name, 1.0) for name in tensors}))


def large_in_the_middle(digits_job) -> OnnxModule:
    factors = {"layer0.weight": 64.0, "layer0.bias": 64.0, "layer1.weight": 2.0, "layer1.bias": 128.0, "layer2.weight": 1 / 128}
    return rescaled(digits_job, factors)


def fit(module: OnnxModule, rows: Rows) -> Posterior:
    weights = module.tensors()
    posterior = Posterior({name: weights[name] for name in module.weight_names}, -4.0)
    options = FitOptions(1.0, 0.3, 0.05, 1e-3, batch_size=64, epochs=3, seed=0)
    optimizer = posterior_optimizer(module, posterior, tensor_scales(module), options)
    loss = NegativeElbo(posterior, "ard", len(rows))
    fit_posterior(module, posterior, loss, Objective(READOUT), optimizer, rows, options, 0, lambda _: None, lambda *_: None)
    return posterior


def test_scales_are_root_mean_squares_and_never_nothing(digits_job):
    module = rescaled(digits_job, {"layer0.bias": 0.0})
    scales = tensor_scales(module)
    for name, tensor in module.tensors().items():
        if name != "layer0.bias":
            assert scales[name] == pytest.approx(np.sqrt((tensor.detach().numpy() ** 2).mean()), rel=1e-5)
    assert scales["layer0.bias"] == pytest.approx(0.1 * sorted(scales[f"layer{index}.weight"] for index in range(3))[1])


def test_a_network_is_trained_alike_at_any_scale_of_its_layers(digits_job, rows):
    """Function, noise, steps and KL are the same for w and c w, so the whole fit is."""
    plain, scaled = rescaled(digits_job, {}), large_in_the_middle(digits_job)
    x = rows.inputs[0]
    torch.testing.assert_close(plain(x), scaled(x), rtol=1e-4, atol=1e-4)
    one, other = fit(plain, rows), fit(scaled, rows)
    for name, log_alpha in one.log_alpha().items():
        both = torch.stack([log_alpha.flatten(), other.log_alpha()[name].flatten()])
        assert float(torch.corrcoef(both)[0, 1]) > 0.99
    assert abs(count_correct(plain, READOUT, rows, 64) - count_correct(scaled, READOUT, rows, 64)) < 0.01 * len(rows)


def test_the_probe_does_not_see_the_scale_and_leaves_no_trace(digits_job, rows):
    found = []
    for module in (rescaled(digits_job, {}), large_in_the_middle(digits_job)):
        before = {name: tensor.detach().clone() for name, tensor in module.tensors().items()}
        probe = Probe(module, READOUT, rows, 64, seed=0)
        log_alpha = probe.log_alpha()
        found.append((log_alpha, probe.step_size(log_alpha)))
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.tensors().items())
    assert found[0] == found[1]
    assert found[0] == (LOG_ALPHAS[0], STEP_SIZES[0])


def test_the_probe_is_careful_with_a_network_that_bears_little(digits_job, rows):
    """Large weights that the hidden activations hardly excite, as where a normalisation is folded in: a small part of them is much."""
    module = rescaled(digits_job, {})
    with torch.no_grad():
        weight = module.tensors()["layer1.weight"]
        hidden = torch.relu(rows.inputs[0] @ module.tensors()["layer0.weight"].T + module.tensors()["layer0.bias"])
        quiet = torch.linalg.svd(hidden - hidden.mean(0)).Vh[-1]  # as good as constant over the rows
        before = count_correct(module, READOUT, rows, 64)
        weight.add_(30 * weight.square().mean().sqrt() * len(quiet) ** 0.5 * quiet)
        module.tensors()["layer1.bias"].sub_((hidden @ (weight - rescaled(digits_job, {}).tensors()["layer1.weight"]).T).mean(0))
        assert count_correct(module, READOUT, rows, 64) > 0.9 * before
    probe = Probe(module, READOUT, rows, 64, seed=0)
    log_alpha = probe.log_alpha()
    assert log_alpha < LOG_ALPHAS[0]
    assert probe.step_size(log_alpha) < STEP_SIZES[0]


def test_a_step_size_that_destroys_is_not_taken(digits_job, rows):
    probe = Probe(rescaled(digits_job, {}), READOUT, rows, 64, seed=0)
    assert probe.step_size(-4.0, (1000.0, 100.0, 0.01)) == 0.01
