"""How a model's output is read: as a class or as numbers, and as a likelihood to train by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, log_softmax, one_hot

from compressor.config import Task
from compressor.errors import UnsupportedTask
from compressor.graph.module import Head

_SMALLEST_PROBABILITY = 1e-7  # float32 cannot tell 1 - 1e-8 from 1


@dataclass(frozen=True)
class Readout:
    """The output of a model with `num_classes` classes, or of a regression.

    Attributes:
        head: "softmax" and "sigmoid" where the graph ends in one, whose input is what is trained; "probabilities" where rows of the
            output are distributions made in another way; "scores" for everything else.
        num_classes: one column each; a sigmoid head of two classes may have a single column, the probability of class 1.
        single: whether it has.
        variance: of the Gaussian around the output of a regression; None for classes.
    """

    head: Head | Literal["probabilities"]
    num_classes: int
    single: bool = False
    variance: float | None = None

    @property
    def task(self) -> Task:
        return "classification" if self.variance is None else "regression"

    def mean_nll(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihood of the labels, in nats, mean over the rows.

        Args:
            logits: what OnnxModule.forward gives with logits=True: one for each element of the output, [N, C], or [N] where `single`.
            labels: [N], int64; of a regression [N, K].
        Returns: a scalar. Of a regression 0.5 * sum((y - f)^2) / variance, without the constant.
        """
        if self.variance is not None:
            return _gaussian_nll(self.values(logits), labels, self.variance)
        if self.single:
            return binary_cross_entropy_with_logits(logits.reshape(-1), labels.to(logits.dtype))
        if self.head == "sigmoid":  # every class for itself, or the probabilities that are delivered would lose their meaning
            targets = one_hot(labels, self.num_classes).to(logits.dtype)
            return binary_cross_entropy_with_logits(logits.flatten(1), targets) * self.num_classes
        if self.head == "probabilities":
            logits = logits.clamp_min(_SMALLEST_PROBABILITY).log()
        return cross_entropy(logits, labels)

    def mean_divergence(self, logits: Tensor, target: Tensor, temperature: float) -> Tensor:
        """Kullback-Leibler divergence of the distribution that `logits` gives from that of `target`, times temperature squared.

        Args:
            logits, target: as in mean_nll, of the model that is trained and of its teacher.
            temperature: both are divided by it first.
        Returns: a scalar, in nats, mean over the rows. Of a regression the divergence of its Gaussians, which knows no temperature.
        """
        if self.variance is not None:
            return self.mean_nll(logits, self.values(target))
        if self.head == "probabilities":
            logits, target = (values.clamp_min(_SMALLEST_PROBABILITY).log() for values in (logits, target))
        logits, target = logits / temperature, target / temperature
        if self.head == "sigmoid":
            p = torch.sigmoid(target)
            cross = binary_cross_entropy_with_logits(logits, p, reduction="sum") - binary_cross_entropy_with_logits(
                target, p, reduction="sum"
            )
            return temperature**2 * cross / len(logits)
        divergence = kl_div(log_softmax(logits, 1), log_softmax(target, 1), reduction="batchmean", log_target=True)
        return temperature**2 * divergence

    def values(self, logits: Tensor) -> Tensor:
        """The numbers of a regression, [N, K], by what OnnxModule.forward gives with logits=True."""
        return (logits.sigmoid() if self.head == "sigmoid" else logits).reshape(len(logits), -1)

    def predict(self, output: Tensor) -> Tensor:
        """The class of each row, [N], of the model's own output; of a regression its numbers, [N, K]."""
        if self.variance is not None:
            return output.reshape(len(output), -1).float()
        return (output.reshape(-1) > 0.5).long() if self.single else output.argmax(dim=-1)

    def guessing_nll(self, labels: Tensor) -> float:
        """`mean_nll` of the best constant output: the entropy of the labels, or of a regression that of their mean, in nats."""
        if self.variance is not None:
            return float(_gaussian_nll(labels.mean(dim=0), labels, self.variance))
        shares = labels.bincount(minlength=self.num_classes).double() / len(labels)
        parts = -torch.xlogy(shares, shares)
        if self.head == "sigmoid" and not self.single:
            parts -= torch.xlogy(1 - shares, 1 - shares)
        return float(parts.sum())

    def probabilities(self, output: Tensor) -> Tensor:
        """The probability of each class, [N, C] in float64, by the model's own output.

        Scores count as logits. Sigmoids, one for each class, are brought to a sum of 1.
        """
        values = output.double()
        if self.single:
            ones = values.reshape(-1)
            return torch.stack([1 - ones, ones], dim=1)
        if self.head == "scores":
            return values.softmax(dim=1)
        if self.head == "softmax" and bool((values < 0).any()):
            return values.exp()  # of a LogSoftmax
        return values / values.sum(dim=1, keepdim=True).clamp_min(_SMALLEST_PROBABILITY)

    def squared_errors(self, output: Tensor, labels: Tensor) -> Tensor:
        """Of each row of a regression, mean over its numbers, [N] in float64."""
        return (self.predict(output).double() - labels.double()).square().mean(dim=1)


def _gaussian_nll(values: Tensor, labels: Tensor, variance: float) -> Tensor:
    return 0.5 * (values - labels).square().sum(dim=1).mean() / variance


def read_head(head: Head, outputs: Tensor) -> Head | Literal["probabilities"]:
    """The head of a model that gives `outputs` [N, C] for some rows: distributions are told by their values where the graph shows none."""
    if head != "scores" or outputs.dim() != 2 or outputs.shape[1] < 2:
        return head
    are_distributions = bool((outputs >= 0).all() and torch.allclose(outputs.sum(1), outputs.new_ones(()), rtol=0.0, atol=1e-3))
    return "probabilities" if are_distributions else head


def count_columns(shape: Sequence[int | None], head: str) -> int | None:
    """Columns of an output of this shape, 1 for a single probability; None where the graph leaves it open.

    Raises: UnsupportedTask where it is neither one score per class nor the probability of class 1.
    """
    if len(shape) == 2 and (shape[1] is None or shape[1] >= 2):
        return shape[1]
    if head == "sigmoid" and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        return 1
    raise UnsupportedTask(
        f"The output has the shape {list(shape)}; a classifier's has one score per class, [N, C] with C of at least 2, or is the "
        "sigmoid of a single one, [N] or [N, 1].",
        param="model",
        suggestion="Export the model with its class scores as output, or name that output with the option `output`; dense prediction is "
        "not supported yet.",
    )


def count_values(shape: Sequence[int | None], head: str) -> int | None:
    """Numbers that an output of this shape gives for each row; None where the graph leaves it open.

    Raises: UnsupportedTask where it is not one row of numbers for each row of the input, or a softmax's.
    """
    if head != "softmax" and len(shape) == 1:
        return 1
    if head != "softmax" and len(shape) == 2 and shape[1] != 0:
        return shape[1]
    ending = " and ends in a softmax" if head == "softmax" else ""
    raise UnsupportedTask(
        f"The output has the shape {list(shape)}{ending}; a regression's gives numbers for each row, [N] or [N, K].",
        param="model",
        suggestion="Export the model with its numbers as output, or name that output with the option `output`; dense prediction is not "
        "supported yet.",
    )


@dataclass(frozen=True)
class Readings:
    """What an output can be read as: `classes` and `values` are columns, 0 where it cannot be, None where the graph leaves it open."""

    classes: int | None
    values: int | None

    @property
    def tasks(self) -> list[Task]:
        return [task for task, columns in (("classification", self.classes), ("regression", self.values)) if columns != 0]  # type: ignore[misc]


def readings_of(shape: Sequence[int | None], head: str, task: Literal["auto", "classification", "regression"]) -> Readings:
    """Of an output of this shape; one that declares none, (), may be anything.

    Raises: UnsupportedTask where it cannot be read for the task, or, with auto, for any.
    """
    if not shape:
        return Readings(None if task != "regression" else 0, None if task != "classification" else 0)
    if task == "classification":
        return Readings(count_columns(shape, head), 0)
    if task == "regression":
        return Readings(0, count_values(shape, head))
    try:
        classes = count_columns(shape, head)
    except UnsupportedTask:
        return Readings(0, count_values(shape, head))
    return Readings(classes, 0 if head == "softmax" else count_values(shape, head))
