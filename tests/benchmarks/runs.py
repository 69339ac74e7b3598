"""One dense training and one compression through `compressor.compress`, on 55,000 images of MNIST with 5,000 others to pick points on.

Whatever is delivered is read back before it counts, by a process that has none of our writers.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from compressor import CompressionConfig, DataReference, Progress, Report, compress, select
from tests.benchmarks.dense import RECIPES, export, train_dense
from tests.benchmarks.mnist import TEST, read_arrays, write_parts
from tests.benchmarks.readback import read_back


@dataclass(frozen=True)
class Run:
    """What came of one seed; the folders live as long as the block that `run_seed` opens.

    `seconds_dense`: of the whole dense training, `epochs_dense` of them, on as many threads as pay there. `files`: what was read back.
    """

    seed: int
    report: Report
    dense: Path
    out: Path
    test: Path
    seconds_dense: float
    epochs_dense: int
    files: dict[str, dict[str, Any]]

    @property
    def dense_epochs(self) -> float:
        """What the whole job took, from the upload to the last file, in epochs of the dense training."""
        return self.report.provenance.seconds / self.seconds_dense * self.epochs_dense

    def point_error(self, number: int) -> float:
        """On the test images, of a point of the curve, exported as a client would."""
        folder = self.out.parent / f"point-{number}"
        select(self.dense, self.out / "curve.safetensors", CompressionConfig(point=number), folder)
        return float(read_back(folder, self.test)["model.onnx"]["error"])

    def to_row(self) -> dict[str, Any]:
        report = self.report
        return {
            "seed": self.seed,
            "error_dense": 1 - report.metric.dense.value,
            "error": 1 - report.metric.compressed.value,
            "error_control": 1 - report.metric.control.value,
            "compression_ratio": report.weights.compression_ratio,
            "compression_ratio_all_parameters": report.parameters.compression_ratio,
            "size_ratio": report.bytes.size_ratio,
            "seconds": report.provenance.seconds,
            "seconds_dense": self.seconds_dense,
            "dense_epochs": self.dense_epochs,
            "delivered": report.delivered,
            "files": self.files,
            "layers": [layer.model_dump(mode="json") for layer in report.weights.layers],
            "curve": [point.model_dump(mode="json") for point in report.curve],
        }


@contextmanager
def run_seed(
    network: str, data: Path, seed: int, options: dict[str, Any], *, labelled: bool = True, shuffled: bool = False
) -> Iterator[Run]:
    """Trains, exports and compresses.

    Args:
        network: of RECIPES.
        options: of the compression.
        labelled: whether the compression gets labels to train and to pick by.
        shuffled: whether the labels are in random order, for the dense training too.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train, validation = write_parts(data, folder, seed)
        if shuffled:
            _shuffle_labels(train, seed)
        dense, seconds = train_dense(RECIPES[network], *read_arrays(train), seed)
        export(dense, folder / "dense.onnx")
        if not labelled:
            for part in (train, validation):
                pq.write_table(pq.read_table(part).drop_columns(["label"]), part)
        reference = DataReference(train=str(train), validation=str(validation), test=str(data / TEST))
        config = CompressionConfig.parse({**options, "seed": seed})
        report = compress(folder / "dense.onnx", reference, config, folder / "out", _show)
        print(f"\nseed {seed}: {report.verdict}", flush=True)
        for point in report.curve:
            print(
                f"  {'*' if point.chosen else ' '} beta {point.beta:<6.3g} threshold {point.threshold or 0:<6.3g} "
                f"ratio {point.compression_ratio:7.1f}  validation {report.budget.metric} {point.metric:.2%}",
                flush=True,
            )
        files = read_back(folder / "out", data / TEST, folder / "dense.onnx")
        yield Run(seed, report, folder / "dense.onnx", folder / "out", data / TEST, seconds, RECIPES[network].epochs, files)


def _shuffle_labels(path: Path, seed: int) -> None:
    table = pq.read_table(path)
    index = table.schema.get_field_index("label")
    order = np.random.default_rng(seed).permutation(table.num_rows)
    pq.write_table(table.set_column(index, "label", table["label"].take(order)), path)


def _show(progress: Progress) -> None:
    eta = "" if progress.eta_s is None else f"{progress.eta_s:5.0f} s left"
    print(f"\r{progress.phase:10} {progress.progress:5.0%} {eta} ", end="", file=sys.stderr, flush=True)
