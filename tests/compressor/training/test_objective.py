"""Distillation: against the formulas written out, and the teacher's outputs whichever way they are kept."""

import dataclasses

import numpy as np
import pytest
import torch
from onnx import load
from scipy.special import log_softmax, rel_entr, softmax

from compressor.graph.module import OnnxModule
from compressor.training.objective import Objective, Teacher
from compressor.training.readout import Readout
from compressor.training.rows import Rows


@pytest.fixture
def module(digits_job) -> OnnxModule:
    return OnnxModule(load(digits_job.model))


@pytest.fixture
def rows(digits_job) -> Rows:
    x, y = digits_job.rows["train"]
    return Rows((torch.from_numpy(x),), torch.from_numpy(y), lambda inputs: inputs)


def pair(columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * torch.randn(6, columns, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_divergence_of_scores_is_that_of_their_softened_distributions(temperature):
    student, teacher = pair(4)
    p, q = (softmax(values.numpy() / temperature, axis=1) for values in (teacher, student))
    expected = temperature**2 * rel_entr(p, q).sum(1).mean()
    assert float(Readout("scores", 4).mean_divergence(student, teacher, temperature)) == pytest.approx(expected)


@pytest.mark.parametrize("readout", [Readout("sigmoid", 3), Readout("sigmoid", 2, single=True)])
def test_the_divergence_of_sigmoids_is_summed_over_the_classes(readout):
    student, teacher = pair(1 if readout.single else 3)
    p, q = (1 / (1 + np.exp(-values.numpy() / 2)) for values in (teacher, student))
    expected = 4 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).sum(1).mean()
    assert float(readout.mean_divergence(student, teacher, 2.0)) == pytest.approx(expected)


def test_probabilities_are_softened_by_their_logarithms():
    student, teacher = pair(4)
    one = Readout("probabilities", 4).mean_divergence(torch.softmax(student, 1), torch.softmax(teacher, 1), 2.0)
    assert float(one) == pytest.approx(float(Readout("scores", 4).mean_divergence(student, teacher, 2.0)))


@pytest.mark.parametrize("readout", [Readout("scores", 4), Readout("sigmoid", 4)])
def test_nothing_diverges_from_itself(readout):
    student, _ = pair(4)
    student.requires_grad_()
    divergence = readout.mean_divergence(student, student.detach(), 2.0)
    assert float(divergence.detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(torch.autograd.grad(divergence, student)[0].abs().max()) < 1e-12


def test_the_teacher_says_the_same_from_memory_and_anew_whatever_becomes_of_the_module(module, rows):
    expected = module(*rows.inputs, logits=True).detach()
    cached = Teacher(module, rows, 100)
    live = Teacher(module, dataclasses.replace(rows, augment=lambda inputs: inputs), 100)
    with torch.no_grad():
        for tensor in module.tensors().values():
            tensor.zero_()
    batch = rows.draw(torch.tensor([3, 1000, 17]))
    for teacher in (cached, live):
        torch.testing.assert_close(teacher.logits(batch), expected[batch.index], rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_weighted_sum_and_with_weight_1_looks_at_no_label(module, rows):
    readout, batch = Readout("scores", 10), rows.draw(torch.arange(8))
    teacher = Teacher(module, rows, 100)
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    nll = -log_softmax(logits.numpy(), axis=1)[np.arange(8), batch.labels.numpy()].mean()
    divergence = float(readout.mean_divergence(logits, teacher.logits(batch), 2.0))
    assert float(Objective(readout).mean_loss(logits, batch)) == pytest.approx(nll, rel=1e-5)
    assert float(Objective(readout, teacher, 0.3, 2.0).mean_loss(logits, batch)) == pytest.approx(0.7 * nll + 0.3 * divergence, rel=1e-5)
    unlabelled = dataclasses.replace(batch, labels=torch.full((8,), -1))
    assert float(Objective(readout, teacher, 1.0, 2.0).mean_loss(logits, unlabelled)) == pytest.approx(divergence, rel=1e-5)
