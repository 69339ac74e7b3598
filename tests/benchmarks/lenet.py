"""`python -m tests.benchmarks.lenet 300-100|5`: the two networks that the literature of sparse training measures itself on.

Trains the dense network on 55,000 images of MNIST, compresses it through `compressor.compress` with the point picked on the other
5,000, and looks at the test images once. Exits 1 where the medians miss the lines that the README quotes.
"""

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from compressor import CompressionConfig, DataReference, Progress, compress
from compressor.graph.cost import measure_cost
from compressor.training.threads import sensible_threads
from tests.benchmarks.mnist import TEST, find_data, read_arrays, write_parts

# How each network is trained and compressed. Everything else is the default of the product.
_DENSE = {"300-100": {"epochs": 20, "batch_size": 128}, "5": {"epochs": 10, "batch_size": 128}}
_CONFIG: dict[str, dict[str, Any]] = {"300-100": {"max_metric_drop": 0.005}, "5": {"max_metric_drop": 0.003, "epochs": 12}}
_LINES = {"300-100": {"compression_ratio": 68.0, "error": 0.0192, "error_dense": 0.0175}}


def lenet_300_100() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(100, 10),
    )


def lenet_5() -> nn.Module:
    """LeNet-5 as Caffe has it: 20 and 50 filters, 500 units, 430,500 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(500, 10),
    )


NETWORKS = {"300-100": lenet_300_100, "5": lenet_5}


def train_dense(network: nn.Module, images: Tensor, labels: Tensor, epochs: int, batch_size: int, seed: int) -> None:
    """Adam with a rate that falls linearly from 1e-3 to 0; dropout against overfitting."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)
    order = torch.Generator().manual_seed(seed)
    num_steps, step = epochs * -(-len(labels) // batch_size), 0
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=order).split(batch_size):
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / num_steps)
            optimizer.zero_grad()
            cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            step += 1
    network.eval()


def export(network: nn.Module, path: Path) -> None:
    """Through PyTorch's default exporter, with a dynamic batch."""
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        network, (torch.zeros(2, 1, 28, 28),), path, dynamo=True, dynamic_shapes=({0: batch},), external_data=False, verbose=False
    )


def run_seed(name: str, data: Path, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """One dense training and one compression, as a row of the JSON."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train, validation = write_parts(data, folder, seed)
        images, labels = read_arrays(train)
        torch.manual_seed(seed)
        network = NETWORKS[name]()
        batch = torch.empty(_DENSE[name]["batch_size"], 1, 28, 28, device="meta")
        cost = measure_cost(lambda: copy.deepcopy(network).to("meta")(batch), max_bytes=2**30)
        started = time.monotonic()
        with sensible_threads(2 * cost.flops):
            train_dense(network, images, labels, seed=seed, **_DENSE[name])
        seconds_dense = time.monotonic() - started
        export(network, folder / "dense.onnx")
        reference = DataReference(train=str(train), validation=str(validation), test=str(data / TEST))
        config = CompressionConfig.parse({**_CONFIG[name], **options, "seed": seed})
        report = compress(folder / "dense.onnx", reference, config, folder / "out", _show)
    print(f"seed {seed}: {report.verdict}", flush=True)
    for point in report.curve:
        print(
            f"  {'*' if point.chosen else ' '} beta {point.beta:<6g} threshold {point.threshold:<4g} "
            f"ratio {point.compression_ratio:7.1f}  validation error {1 - point.metric:.2%}",
            flush=True,
        )
    return {
        "seed": seed,
        "error_dense": 1 - report.metric.dense.value,
        "error": 1 - report.metric.compressed.value,
        "error_control": 1 - report.metric.control.value,
        "compression_ratio": report.weights.compression_ratio,
        "compression_ratio_all_parameters": report.parameters.compression_ratio,
        "size_ratio": report.bytes.size_ratio,
        "seconds": report.provenance.seconds,
        "seconds_dense": seconds_dense,
        "delivered": report.delivered,
        "layers": [layer.model_dump(mode="json") for layer in report.weights.layers],
        "curve": [point.model_dump(mode="json") for point in report.curve],
    }


def _show(progress: Progress) -> None:
    eta = "" if progress.eta_s is None else f"{progress.eta_s:5.0f} s left"
    print(f"\r{progress.phase:10} {progress.progress:5.0%} {eta} ", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None, help="folder of the two MNIST parquet files")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the compression, as JSON")
    arguments = parser.parse_args()
    options = {key: json.loads(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    data = find_data(arguments.data)
    print(f"LeNet-{arguments.network}, compressed with {json.dumps({**_CONFIG[arguments.network], **options})}", flush=True)
    runs = [run_seed(arguments.network, data, seed, options) for seed in range(arguments.seeds)]
    numbers = [key for key, value in runs[0].items() if isinstance(value, float)]
    result = {
        "network": arguments.network,
        "config": {**_CONFIG[arguments.network], **options},
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "runs": runs,
        "median": {key: median(run[key] for run in runs) for key in numbers},
    }
    _print_table(runs, result["median"])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return _check(result["median"], _LINES.get(arguments.network, {}))


def _print_table(runs: list[dict[str, Any]], medians: dict[str, float]) -> None:
    print(f"{'seed':>6} {'dense error':>11} {'error':>7} {'control':>8} {'ratio':>7} {'all':>6} {'bytes':>6} {'dense s':>8} {'seconds':>8}")
    for row in [*runs, {"seed": "median", **medians}]:
        print(
            f"{row['seed']:>6} {row['error_dense']:>11.2%} {row['error']:>7.2%} {row['error_control']:>8.2%} "
            f"{row['compression_ratio']:>7.1f} {row['compression_ratio_all_parameters']:>6.1f} {row['size_ratio']:>6.1f} "
            f"{row['seconds_dense']:>8.0f} {row['seconds']:>8.0f}"
        )


def _check(medians: dict[str, float], lines: dict[str, float]) -> int:
    """1 where a median misses its line: ratios are to be at least, errors at most what is written."""
    missed = [
        f"{key} {medians[key]:.4g} misses {line:g}"
        for key, line in lines.items()
        if (medians[key] < line if key == "compression_ratio" else medians[key] > line)
    ]
    print("\n".join(missed) if missed else "every line is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
