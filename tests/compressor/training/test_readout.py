"""Outputs read as classes and as likelihoods: against the formulas written out."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from compressor.errors import UnsupportedTask
from compressor.training.readout import Readout, read_head, readings_of

LABELS = torch.tensor([0, 2, 1, 2, 2])


def logits(columns: int) -> torch.Tensor:
    return torch.randn(5, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("head", ["scores", "softmax"])
def test_scores_and_softmax_are_a_categorical_likelihood(head):
    x = logits(3)
    expected = -np.mean([np.log(np.exp(row[label]) / np.exp(row).sum()) for row, label in zip(x.numpy(), LABELS.numpy(), strict=True)])
    assert float(Readout(head, 3).mean_nll(x, LABELS)) == pytest.approx(expected)


def test_probabilities_are_their_own_likelihood():
    x = torch.softmax(logits(3), 1)
    assert float(Readout("probabilities", 3).mean_nll(x, LABELS)) == pytest.approx(float(-x[torch.arange(5), LABELS].log().mean()))
    certain = torch.eye(3)[[0, 2, 1, 2, 0]]
    assert float(Readout("probabilities", 3).mean_nll(certain, LABELS)) == pytest.approx(-np.log(1e-7) / 5, rel=1e-3)


def test_a_sigmoid_of_several_columns_is_a_likelihood_of_every_class_for_itself():
    x = logits(3)
    p, y = torch.sigmoid(x), torch.eye(3)[LABELS]
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).sum(1).mean()
    assert float(Readout("sigmoid", 3).mean_nll(x, LABELS)) == pytest.approx(float(expected))


@pytest.mark.parametrize("shape", [(5, 1), (5,)])
def test_a_single_sigmoid_is_the_probability_of_class_1(shape):
    readout, x, labels = Readout("sigmoid", 2, single=True), logits(1).reshape(shape), torch.tensor([0, 1, 1, 0, 1])
    p = torch.sigmoid(x).reshape(-1)
    expected = -torch.where(labels == 1, p.log(), (1 - p).log()).mean()
    assert float(readout.mean_nll(x, labels)) == pytest.approx(float(expected))
    assert readout.predict(torch.sigmoid(x)).tolist() == (x.reshape(-1) > 0).long().tolist()


def test_the_class_is_the_largest_column():
    assert Readout("scores", 3).predict(torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("readout", [Readout("scores", 4), Readout("sigmoid", 4), Readout("sigmoid", 2, single=True)])
def test_guessing_is_the_best_that_one_output_for_all_rows_can_do(readout):
    labels = torch.tensor([0, 1, 1, 1, 0, 1]) if readout.single else torch.tensor([0, 2, 1, 2, 2, 2])
    columns = 1 if readout.single else readout.num_classes

    def mean_nll(constant: np.ndarray) -> float:
        return float(readout.mean_nll(torch.from_numpy(constant).expand(len(labels), columns), labels))

    best = minimize(mean_nll, np.zeros(columns), method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-6, "fatol": 1e-9})
    assert readout.guessing_nll(labels) == pytest.approx(best.fun, abs=1e-3)


def test_distributions_are_told_by_their_values_where_the_graph_shows_none():
    x = logits(3)
    assert read_head("scores", x) == "scores"
    assert read_head("scores", torch.softmax(x, 1)) == "probabilities"
    assert read_head("scores", torch.softmax(x, 1) + 0.01) == "scores"
    assert read_head("softmax", torch.softmax(x, 1)) == "softmax"
    assert read_head("sigmoid", torch.sigmoid(x)) == "sigmoid"


def test_a_regression_is_a_gaussian_of_its_variance():
    output, labels = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 4.0], [2.0, 5.0]])
    readout = Readout("scores", 0, variance=0.5)
    assert readout.task == "regression"
    assert float(readout.mean_nll(output, labels)) == pytest.approx(0.5 * (4 + 1) / 0.5 / 2)
    assert float(Readout("sigmoid", 0, variance=0.5).mean_nll(output, labels)) == pytest.approx(
        float(readout.mean_nll(output.sigmoid(), labels))
    )
    mean = labels.mean(0).expand(2, 2)
    assert readout.guessing_nll(labels) == pytest.approx(float(readout.mean_nll(mean, labels)))
    assert readout.squared_errors(output, labels).tolist() == [2.0, 0.5]


@pytest.mark.parametrize("head", ["scores", "sigmoid"])
def test_the_divergence_of_a_regression_is_that_of_its_gaussians(head):
    """KL between Gaussians of one variance is half the squared distance of their means over it."""
    logits, teacher = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 4.0], [2.0, 5.0]])
    means = [values.sigmoid() if head == "sigmoid" else values for values in (logits, teacher)]
    gaussians = [torch.distributions.Normal(mean, 0.5**0.5) for mean in means]
    expected = torch.distributions.kl_divergence(gaussians[1], gaussians[0]).sum(1).mean()
    assert float(Readout(head, 0, variance=0.5).mean_divergence(logits, teacher, 2.0)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_regression_of_one_number_has_one_column(shape):
    readout, output = Readout("scores", 0, variance=1.0), torch.arange(3.0).reshape(shape)
    assert readout.predict(output).shape == (3, 1)
    assert float(readout.mean_nll(output, torch.arange(3.0)[:, None])) == 0


def test_probabilities_of_every_head_are_distributions():
    scores = logits(4)
    softmax = scores.double().softmax(1)
    for readout, output in (
        (Readout("scores", 4), scores),
        (Readout("softmax", 4), scores.softmax(1)),
        (Readout("softmax", 4), scores.log_softmax(1)),
        (Readout("probabilities", 4), scores.softmax(1)),
    ):
        assert torch.allclose(readout.probabilities(output), softmax, atol=1e-6)
    single = Readout("sigmoid", 2, single=True).probabilities(torch.tensor([0.2, 0.9]))
    assert torch.allclose(single, torch.tensor([[0.8, 0.2], [0.1, 0.9]], dtype=torch.float64), atol=1e-6)
    several = Readout("sigmoid", 4).probabilities(scores.sigmoid())
    assert torch.allclose(several.sum(1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("shape", "head", "tasks"),
    [
        ((None, 3), "scores", ["classification", "regression"]),
        ((None, 3), "softmax", ["classification"]),
        ((None, 1), "scores", ["regression"]),
        ((None,), "scores", ["regression"]),
        ((None, 1), "sigmoid", ["classification", "regression"]),
        ((None, None), "scores", ["classification", "regression"]),
        ((), "scores", ["classification", "regression"]),
    ],
)
def test_what_an_output_can_be_read_for(shape, head, tasks):
    assert readings_of(shape, head, "auto").tasks == tasks
    for task in ("classification", "regression"):
        if task in tasks:
            assert readings_of(shape, head, task).tasks == [task]
        else:
            with pytest.raises(UnsupportedTask):
                readings_of(shape, head, task)


def test_an_image_is_read_for_nothing():
    with pytest.raises(UnsupportedTask, match="regression"):
        readings_of((None, 3, 8, 8), "scores", "auto")
