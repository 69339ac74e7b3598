"""MNIST as the Hugging Face parquet files have it (ylecun/mnist): where it lies, and its parts as files and arrays."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

DATA_VARIABLE = "BAYESPRESS_BENCH_DATA"
TRAIN, TEST = "mnist-train.parquet", "mnist-test.parquet"
_NUM_VALIDATION = 5_000


def find_data(given: Path | None = None) -> Path:
    """The folder with the two files: as given, as the environment says, or beside the checkout.

    Raises: FileNotFoundError saying what to download.
    """
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    candidates = [given] if given else [Path(os.environ[DATA_VARIABLE])] if DATA_VARIABLE in os.environ else [beside]
    for folder in candidates:
        if (folder / TRAIN).is_file() and (folder / TEST).is_file():
            return folder
    raise FileNotFoundError(
        f"{TRAIN} and {TEST} are not in {candidates[0]}: download the train and test parquet of ylecun/mnist from the Hugging Face hub, "
        f"name them so, and give their folder by --data or {DATA_VARIABLE}."
    )


def write_parts(data: Path, folder: Path, seed: int) -> tuple[Path, Path]:
    """55,000 rows to train on and 5,000 to validate on, drawn by the seed, as parquet files of their own."""
    table = pq.read_table(data / TRAIN)
    order = np.random.default_rng(seed).permutation(table.num_rows)
    train, validation = folder / "train.parquet", folder / "validation.parquet"
    pq.write_table(table.take(pa.array(order[_NUM_VALIDATION:])), train)
    pq.write_table(table.take(pa.array(order[:_NUM_VALIDATION])), validation)
    return train, validation


def read_arrays(path: Path) -> tuple[Tensor, Tensor]:
    """Pixels [N, 1, 28, 28] as float32 in [0, 1], and labels [N]."""
    table = pq.read_table(path)
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()]
    return torch.from_numpy(np.stack(images)[:, None]).float() / 255, torch.tensor(table["label"].to_pylist())
