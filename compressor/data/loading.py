"""A dataset reference -> the three parts of a run, with what is absent carved out of the training rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from compressor.config import CompressionConfig
from compressor.data.dataset import InputSpec, Loaded, Parts
from compressor.data.digits import DIGITS, read_digits
from compressor.data.labels import Targets
from compressor.data.npz import read_npz
from compressor.data.parquet import read_parquet
from compressor.data.source import Source
from compressor.data.split import carve
from compressor.errors import InvalidDataset
from compressor.protocol import DataReference

SUFFIXES = (".parquet", ".npz")

_CARVABLE: tuple[Literal["validation", "test"], ...] = ("validation", "test")


def load_parts(
    reference: DataReference, inputs: Sequence[InputSpec], targets: Targets, config: CompressionConfig, cache_dir: Path
) -> Parts:
    """Reads the train, validation and test rows into arrays that fit the model's inputs.

    Args:
        reference: local files (.parquet, .npz) or `builtin:digits`; an absent validation or test part is carved from train,
            10 % each, by `config.seed`.
        inputs: the model's inputs, with the batch dimension first in their shapes.
        targets: what the labels may be, and whether there must be any.
        config: `label_column` and `seed` are used.
        cache_dir: a folder for what the readers write beside; made where it is absent.
    Returns: the parts; images as uint8, still to be scaled (compressor.data.scaling).
    Raises: DatasetError, by the subclass that says what is wrong: InvalidDataset, ExternalReference, DatasetTooLarge,
        MissingLabels, LabelOutOfRange, ShapeMismatch, UnsupportedTask.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)

    def read(part: str, source: str) -> Loaded:
        return _read(part, source, inputs, targets, config, cache_dir)

    # In messages the parts have the client's names, for whom the rows to train on are the dataset.
    train = read("dataset", reference.train)
    sources = {"validation": reference.validation, "test": reference.test}
    given = {part: read(part, source) for part, source in sources.items() if source is not None}
    for part, one in given.items():
        _check_alike(train, one, part)
    _check_one_task(train, given)
    loaded = {"train": train, **given}
    parts = {part: one.dataset for part, one in loaded.items()}
    warnings = [warning for one in loaded.values() for warning in one.warnings]

    carved = tuple(part for part in _CARVABLE if part not in parts)
    rows = carve(len(train.dataset), carved, config.seed) if carved else {}
    parts |= {part: train.dataset.take(indices) for part, indices in rows.items()}
    if carved:
        warnings.append(
            f"No {' and no '.join(carved)} rows were given: 10 % each were split off the training rows (split.npz). The dense model has "
            "probably seen these rows, which flatters its metric and the budget that is measured against it."
        )
    return Parts(parts["train"], parts["validation"], parts["test"], train.images, carved, rows, warnings)


def _read(part: str, source: str, inputs: Sequence[InputSpec], targets: Targets, config: CompressionConfig, cache_dir: Path) -> Loaded:
    if source == DIGITS:
        return read_digits(Source(part, DIGITS), tuple(inputs), targets)
    path = Path(source)
    where = Source(part, path.name)
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, where, inputs, targets, config.label_column, cache_dir)
    if path.suffix.lower() == ".npz":
        return read_npz(path, where, inputs, targets)
    raise InvalidDataset(
        f"{where}: not a kind of file that is read.",
        param=part,
        suggestion=f"Give a file that ends in {' or '.join(SUFFIXES)}, or {DIGITS}.",
    )


def _check_alike(train: Loaded, other: Loaded, part: str) -> None:
    """All parts must be of the kind and row shape of the training rows: dynamic dimensions and scaling are chosen once."""
    kinds = [[(array.dtype, array.shape[1:]) for array in loaded.dataset.inputs] for loaded in (train, other)]
    if kinds[0] != kinds[1] or train.images != other.images:
        raise InvalidDataset(
            f"{part} and dataset differ in kind: one holds images and another numbers, or their rows differ in shape.",
            param=part,
            suggestion="Write dataset, validation and test in the same way.",
        )


def _check_one_task(train: Loaded, given: Mapping[str, Loaded]) -> None:
    """Classes in one part and numbers in another are a mistake; `task` says which is meant."""
    kinds = {part: one.dataset.labels.dtype for part, one in {"dataset": train, **given}.items() if one.dataset.labels is not None}
    if len(set(kinds.values())) > 1:
        raise InvalidDataset(
            f"Labels are integers in one part and floats in another: {', '.join(f'{part} {kind}' for part, kind in kinds.items())}.",
            param=list(kinds)[-1],
            suggestion='Write all labels as one type, or set {"task": "regression"}.',
        )
