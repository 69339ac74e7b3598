"""What a fitted log_alpha means where theory can say it: z scores in the orthogonal linear case, and the RVM's relevant inputs."""

import numpy as np
import pytest
import torch
from scipy.special import dawsn, expit
from sklearn.linear_model import ARDRegression
from torch import Tensor, nn

from compressor.config import Prior
from compressor.graph.module import OnnxModule
from compressor.training.fit import FineTuneOptions, FitOptions, fine_tune, fit_posterior, posterior_optimizer
from compressor.training.objective import Objective
from compressor.training.readout import Readout
from compressor.training.rows import Rows
from compressor.training.steps import tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior
from tests.compressor.graph.models import model_of, node

# Estimates in units of their standard errors; none within 0.1 of 1, where relevance turns.
Z_SCORES = np.array([0.1, -0.3, 0.5, -0.6, 0.7, -0.8, 0.85, 1.15, -1.3, 1.5, -1.7, 2.0, -2.5, 3.0, -4.0, 6.0, 10.0])


def fit_orthogonal(z_scores: np.ndarray, prior: Prior, beta: float) -> Posterior:
    """y = X w + noise of variance 1 with X'X = 1: the likelihood's expectation is known, -((mean - z)^2 + sigma^2) / 2 for each weight."""
    z = torch.from_numpy(z_scores)
    mean = nn.Parameter(z.clone())
    posterior = Posterior({"w": mean}, -4.0)
    negative_elbo = NegativeElbo(posterior, prior, num_data=100)
    optimizer = torch.optim.Adam([mean, posterior.log_sigma2["w"]], 0.03)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-4, total_iters=3000)
    for _ in range(3000):
        optimizer.zero_grad()
        negative_elbo.backward(((mean - z).square() + posterior.log_sigma2["w"].exp()).sum() / 2 / 100, beta)
        optimizer.step()
        posterior.clamp_()
        decay.step()
    return posterior


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_ard_gives_alpha_1_over_z2_by_beta_minus_1_and_beta_is_the_bar_for_the_square_of_z(beta):
    z2 = Z_SCORES**2 / beta
    assert np.abs(z2 - 1).min() > 0.1
    log_alpha = fit_orthogonal(Z_SCORES, "ard", beta).log_alpha()["w"].numpy()
    alive = z2 > 1
    np.testing.assert_allclose(log_alpha[alive], -np.log(z2[alive] - 1), atol=2e-3)
    assert log_alpha[~alive].min() > 4  # and on its way to infinity: the paper's threshold is 3


def test_under_the_exact_log_uniform_prior_alpha_is_that_of_its_stationary_point():
    """Where both derivatives vanish, z^2 = 2 (1 + alpha)^2 / alpha x D(x) at x = 1 / sqrt(2 alpha), which is above 1 for every alpha."""
    log_alpha = fit_orthogonal(Z_SCORES, "log_uniform_exact", 1.0).log_alpha()["w"].numpy()
    alive = np.abs(Z_SCORES) > 1
    alpha = np.exp(log_alpha[alive])
    root = np.sqrt(0.5 / alpha)
    np.testing.assert_allclose(2 * (1 + alpha) ** 2 / alpha * root * dawsn(root), Z_SCORES[alive] ** 2, rtol=2e-3)
    assert log_alpha[~alive].min() > 4


def test_support_and_means_are_those_of_ard_regression():
    """The same model, with the evidence maximised instead of its bound: with orthogonal inputs the bound is tight."""
    random = np.random.default_rng(0)
    num_data, num_inputs = 2000, len(Z_SCORES)
    basis, _ = np.linalg.qr(random.standard_normal((num_data, num_inputs + 1)))
    x, residual = basis[:, :num_inputs], basis[:, num_inputs] * np.sqrt(num_data)  # noise of variance 1 that no input explains
    flat = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), 1e-12)  # its hyperpriors, which bound the precisions
    peer = ARDRegression(fit_intercept=False, max_iter=5000, tol=1e-9, **flat).fit(x, x @ Z_SCORES + residual)
    posterior = fit_orthogonal(Z_SCORES, "ard", 1.0)
    keep = posterior.keep_masks(3.0)["w"].numpy()
    np.testing.assert_array_equal(keep, peer.coef_ != 0)
    # The peer estimates the noise too, to 1 / sqrt(2 * 2000) = 1.6 %; a mean is z - 1 / z.
    np.testing.assert_allclose(posterior.means["w"].detach().numpy()[keep], peer.coef_[keep], rtol=0.02, atol=0.02)


# A layer of the real training, against the relevance vector machine


def logistic_rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """400 rows of 30 inputs, of which six matter, the last two little."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((400, 30))
    logits = x[:, :6] @ [2.0, -1.5, 1.2, -1.0, 0.8, 0.6] + 0.3
    return x, (random.random(400) < expit(logits)).astype(np.int64)


def relevant_by_laplace(x: np.ndarray, y: np.ndarray) -> set[int]:
    """The inputs that a relevance vector machine keeps: evidence of a logistic model maximised over a precision for each weight.

    Source: Tipping 2001 (JMLR 1), section 3: Laplace's approximation, and MacKay's fixed point of the precisions. The bias has no prior.
    """
    inputs = np.column_stack([x, np.ones(len(x))])
    kept, weights, precisions = np.arange(inputs.shape[1]), np.zeros(inputs.shape[1]), np.ones(inputs.shape[1])
    precisions[-1] = 1e-9
    for _ in range(300):
        design = inputs[:, kept]
        for _ in range(5):  # Newton, from where it stood
            p = expit(design @ weights)
            hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(precisions)
            weights = weights - np.linalg.solve(hessian, design.T @ (p - y) + precisions * weights)
        well_determined = 1 - precisions * np.diag(np.linalg.inv(hessian))
        precisions[:-1] = (well_determined / weights**2)[:-1]
        alive = precisions < 1e5
        kept, weights, precisions = kept[alive], weights[alive], precisions[alive]
    return set(kept[:-1].tolist())


def fitted_log_alpha(x: np.ndarray, y: np.ndarray) -> Tensor:
    """log_alpha of the inputs of one layer with a sigmoid, trained as every model is."""
    arrays = {"w": np.full((x.shape[1], 1), 0.5, np.float32), "b": np.zeros(1, np.float32)}
    nodes = [node("Gemm", ["x", "w", "b"], "s"), node("Sigmoid", ["s"], "y")]
    module = OnnxModule(model_of(nodes, {"x": ["n", x.shape[1]]}, {"y": ["n", 1]}, arrays))
    rows, readout = Rows((torch.from_numpy(x).float(),), torch.from_numpy(y), lambda inputs: inputs), Readout("sigmoid", 2, single=True)
    fine_tune(module, {}, Objective(readout), rows, FineTuneOptions(0.1, 100, 40, 0), lambda _: None)
    posterior = Posterior({"w": module.tensors()["w"]}, -3.0)
    options = FitOptions(1.0, 0.1, 2e-2, 2e-2, batch_size=100, epochs=300, seed=0)
    optimizer = posterior_optimizer(module, posterior, tensor_scales(module), options)
    negative_elbo = NegativeElbo(posterior, "ard", len(rows))
    fit_posterior(module, posterior, negative_elbo, Objective(readout), optimizer, rows, options, 0, lambda _: None, lambda *_: None)
    return posterior.log_alpha()["w"].flatten()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_layer_keeps_the_relevance_vector_machines_inputs(seed):
    """Up to two: an input whose z score is near 1 may fall on either side, by the noise of the last steps."""
    x, y = logistic_rows(seed)
    relevant = relevant_by_laplace(x, y)
    kept = set((fitted_log_alpha(x, y) < 2.0).nonzero().flatten().tolist())
    assert set(range(5)) <= relevant <= set(range(30))
    assert 8 <= len(relevant) <= 20
    assert len(kept ^ relevant) <= 2
