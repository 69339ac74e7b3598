"""Labels: integer classes in [0, num_classes), or numbers to be met, or an error that says which row is neither."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from compressor.config import Task
from compressor.data.dataset import Array, Labels, to_names
from compressor.data.numeric import first_not_finite
from compressor.data.source import Source
from compressor.errors import InvalidDataset, LabelOutOfRange, MissingLabels, UnsupportedTask


@dataclass(frozen=True)
class Targets:
    """What the labels of a model may be.

    Attributes:
        task: what the client says they are; auto takes integers for classes and floats for numbers.
        num_classes: classes that the output can name; 0 where it does not hold scores of classes.
        num_values: numbers that it gives for each row; 0 where it is no regression's, None where only a run can show how many.
        required: whether rows without labels are refused.
    """

    task: Literal["auto", "classification", "regression"]
    num_classes: int
    num_values: int | None
    required: bool = True

    def task_of(self, labels: Literal["integers", "floats"], where: Source, name: str, kind: str) -> Task:
        """Which task labels of a type are of.

        Raises: UnsupportedTask where the model's output is not made for it.
        """
        task = self.task if self.task != "auto" else "regression" if labels == "floats" else "classification"
        if task == "classification" and labels == "floats":
            raise float_labels(where, name, kind)
        if task == "classification" and not self.num_classes:
            raise UnsupportedTask(
                f"{where}: the labels {name!r} are {kind}, classes, but the model's output does not hold one score for each.",
                param=name,
                suggestion='Set {"task": "regression"} where they are numbers to be met; of a classifier, output one score for each class.',
            )
        if task == "regression" and self.num_values == 0:
            raise UnsupportedTask(
                f"{where}: the labels {name!r} are {kind}, a regression's, but the model's output is a softmax over classes.",
                param=name,
                suggestion="Give the classes as integers 0, 1, 2, ...",
            )
        return task

    def check_width(self, width: int, where: Source, name: str) -> None:
        """Raises: UnsupportedTask where labels of so many numbers are not what the output gives."""
        if self.num_values not in (None, width):
            raise UnsupportedTask(
                f"{where}: the labels {name!r} give {width} numbers for each row and the model's output {self.num_values}; in a regression "
                "both are alike.",
                param=name,
                suggestion="Give labels as wide as the output, or the classes of a classifier as integers 0, 1, 2, ...",
            )

    def refuse_float_classes(self, labels: Labels, where: Source, name: str) -> None:
        """Raises: UnsupportedTask where floats that are all 0 or 1 may be meant as the classes that the output names."""
        if self.task == "auto" and self.num_classes and bool(np.isin(labels, (0.0, 1.0)).all()):
            raise UnsupportedTask(
                f"{where}: the labels {name!r} are floats, all of them 0 or 1: classes, or a regression?",
                param=name,
                suggestion='Give classes as integers 0, 1, 2, ...; set {"task": "regression"} where these are numbers to be met.',
            )


def missing_labels(where: Source, wanted: str, found: list[str]) -> MissingLabels:
    return MissingLabels(
        f"{where}: there are no labels under {wanted}. Found: {to_names(found)}.",
        param=wanted,
        suggestion="Add a column of labels, or name yours with the option label_column (in a .npz the labels are the array 'y'); "
        'with {"distillation_weight": 1} the uploaded model\'s own outputs take their place.',
    )


def not_integers(where: Source, name: str, kind: str) -> InvalidDataset:
    return InvalidDataset(
        f"{where}: the labels {name!r} are {kind}, not integer classes.",
        param=name,
        suggestion="Encode the classes as integers 0, 1, 2, ... in the order of the model's outputs.",
    )


def float_labels(where: Source, name: str, kind: str) -> UnsupportedTask:
    return UnsupportedTask(
        f"{where}: the labels {name!r} are {kind}; a classification takes integer classes, and a regression floats.",
        param=name,
        suggestion='Give the classes as integers 0, 1, 2, ..., or float numbers and {"task": "regression"}.',
    )


def check_range(labels: Array, num_classes: int, where: Source, name: str, first_row: int = 0) -> Labels:
    """Integer or boolean `labels` as int64.

    Raises: LabelOutOfRange naming the first row whose label is not in [0, num_classes).
    """
    wrong = np.zeros(len(labels), dtype=bool) if labels.dtype == bool else (labels < 0) | (labels >= num_classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise LabelOutOfRange(
            f"{where}, row {first_row + row}: label {int(labels[row])} is not one of the model's {num_classes} classes "
            f"(0 to {num_classes - 1}).",
            param=name,
            suggestion="Number the classes from 0 in the order of the model's outputs, or drop the rows of other classes.",
        )
    return labels.astype(np.int64)


def check_finite(labels: Array, where: Source, name: str, first_row: int = 0) -> Labels:
    """Numbers [N, K] as float32.

    Raises: InvalidDataset naming the first row that holds NaN, infinity or a number beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        converted = labels.astype(np.float32)
    row = first_not_finite(converted)
    if row is not None:
        raise InvalidDataset(
            f"{where}, row {first_row + row}: the label {name!r} holds NaN, infinity or a number beyond float32.",
            param=name,
            suggestion="Label such rows or drop them.",
        )
    return converted


def check_label_array(labels: Array, targets: Targets, where: Source, name: str) -> Labels:
    """A whole array of labels as int64 classes [N], of [N] or [N, 1]; or as float32 numbers [N, K], of [N] or [N, K].

    Raises: UnsupportedTask (labels that the output is not made for), InvalidDataset (one-hot, strings, NaN), LabelOutOfRange.
    """
    if labels.dtype.kind not in "biuf":
        raise not_integers(where, name, str(labels.dtype))
    if labels.ndim > 2:
        raise not_integers(where, name, f"an array of shape {list(labels.shape)}")
    task = targets.task_of("floats" if labels.dtype.kind == "f" else "integers", where, name, str(labels.dtype))
    if task == "classification":
        if labels.ndim == 2 and labels.shape[1] != 1:
            raise not_integers(where, name, f"an array of shape {list(labels.shape)} (one-hot?)")
        return check_range(labels.reshape(-1), targets.num_classes, where, name)
    values = labels.reshape(len(labels), -1)
    targets.check_width(values.shape[1], where, name)
    found = check_finite(values, where, name)
    if labels.dtype.kind == "f":
        targets.refuse_float_classes(found, where, name)
    return found
