"""Carving validation and test parts out of the training rows, and `split.npz`, which says which rows went where."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.atomic import replacing
from compressor.errors import InvalidDataset

CARVED_FRACTION = 0.1

Rows = npt.NDArray[np.int64]


def carve(num_rows: int, parts: Sequence[str], seed: int) -> dict[str, Rows]:
    """Random disjoint row indices: a tenth, at least one row, for each of `parts`, the rest as "train".

    Raises: InvalidDataset where no row would be left to train on.
    """
    size = max(1, round(num_rows * CARVED_FRACTION))
    if num_rows < size * len(parts) + 1:
        raise InvalidDataset(
            f"{num_rows} rows are too few to split off {' and '.join(parts)}.",
            param="dataset",
            suggestion="Give more rows, or files for validation and test.",
        )
    order = np.random.default_rng(seed).permutation(num_rows).astype(np.int64)
    rows = {part: order[index * size : (index + 1) * size] for index, part in enumerate(parts)}
    return {"train": order[size * len(parts) :], **rows}


def write_split(path: Path, indices: Mapping[str, Rows]) -> None:
    """Writes the row indices as a .npz with an int64 array per part; whole or not at all."""
    # Any, because numpy from 2.2 on declares a keyword that is no array; before, it would have been stored as one.
    arrays: dict[str, Any] = dict(indices)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_split(path: Path) -> dict[str, Rows]:
    """The row indices that `write_split` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
