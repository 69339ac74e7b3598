"""Labels: integer classes in [0, num_classes), or an error that says which row is not."""

import numpy as np

from compressor.data.dataset import Array, Labels, to_names
from compressor.data.source import Source
from compressor.errors import InvalidDataset, LabelOutOfRange, MissingLabels, UnsupportedTask


def missing_labels(where: Source, wanted: str, found: list[str]) -> MissingLabels:
    return MissingLabels(
        f"{where}: there are no labels under {wanted}. Found: {to_names(found)}.",
        param=wanted,
        suggestion="Add a column of integer classes, or name yours with the option label_column (in a .npz the labels are the array 'y').",
    )


def not_integers(where: Source, name: str, kind: str) -> InvalidDataset:
    return InvalidDataset(
        f"{where}: the labels {name!r} are {kind}, not integer classes.",
        param=name,
        suggestion="Encode the classes as integers 0, 1, 2, ... in the order of the model's outputs.",
    )


def float_labels(where: Source, name: str, kind: str) -> UnsupportedTask:
    return UnsupportedTask(
        f"{where}: the labels {name!r} are {kind}; only classification by integer classes is supported, not regression.",
        param=name,
        suggestion="Give the classes as integers 0, 1, 2, ...",
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


def check_label_array(labels: Array, num_classes: int, where: Source, name: str) -> Labels:
    """A whole array of labels, [N] or [N, 1], as int64.

    Raises: UnsupportedTask (floats), InvalidDataset (one-hot, strings), LabelOutOfRange.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise not_integers(where, name, f"an array of shape {list(labels.shape)} (one-hot?)")
    if labels.dtype.kind == "f":
        raise float_labels(where, name, str(labels.dtype))
    if labels.dtype.kind not in "biu":
        raise not_integers(where, name, str(labels.dtype))
    return check_range(labels, num_classes, where, name)
