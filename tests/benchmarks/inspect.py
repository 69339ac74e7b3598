"""`python -m tests.benchmarks.inspect`: how long an inspection takes, and how near its estimates are.

A ResNet-18 of 45 MB is inspected in fresh processes: seconds of `compressor.inspect` after the imports, and of the whole command. Exits 1
where a median of five misses its line; both count on a machine with two cores to spare. Then steps of training are timed beside what
the inspection says of them.
"""

import argparse
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from compressor.admission import admit
from compressor.config import CompressionConfig
from compressor.estimate import estimate_training
from compressor.training.fit import FitOptions, fit_posterior, posterior_optimizer
from compressor.training.objective import Objective
from compressor.training.readout import Readout
from compressor.training.rows import Rows
from compressor.training.steps import tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior
from tests.benchmarks.dense import lenet_5
from tests.benchmarks.networks import Transformer, mlp, resnet_18

_LINES = {"after_imports_s": 2.0, "command_s": 6.0}
_RUNS = 5
_STEPS = 8
# What torch loads of its own at the first call counts as a part of the call.
_CALL = """
import sys, time
import compressor.survey
started = time.perf_counter()
compressor.inspect(sys.argv[1])
print(time.perf_counter() - started)
"""

Case = tuple[Callable[[], nn.Module], Callable[[int], Tensor], int]
_CASES: dict[str, Case] = {
    "LeNet-5": (lenet_5, lambda rows: torch.randn(rows, 1, 28, 28), 256),
    "MLP": (mlp, lambda rows: torch.randn(rows, 1024), 256),
    "ResNet-18, 64 px": (resnet_18, lambda rows: torch.randn(rows, 3, 64, 64), 32),
    "transformer": (Transformer, lambda rows: torch.randint(0, 5000, (rows, 64)), 64),
}


def export(network: nn.Module, rows: Tensor, path: Path) -> None:
    """Through PyTorch's default exporter, with a dynamic batch."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of its own code
        torch.onnx.export(network.eval(), (rows,), path, dynamo=True, dynamic_shapes=dynamic, external_data=False, verbose=False)


def seconds_after_imports(model: Path) -> float:
    done = subprocess.run([sys.executable, "-c", _CALL, str(model)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def seconds_of_command(model: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "service.cli", "inspect", str(model)], capture_output=True, check=True)
    return time.perf_counter() - started


def compare_step(case: Case, path: Path) -> dict[str, float]:
    """Seconds of a step of fitting, as estimated and as measured, on one thread in seconds of the processor."""
    make, draw, batch_size = case
    export(make(), draw(2), path)
    module = admit(path, CompressionConfig()).module
    assert module.example is not None
    estimate = estimate_training(module, module.example, batch_size, on_cpu=True)
    assert estimate.seconds_per_1000_rows is not None
    estimated, measured = estimate.seconds_per_1000_rows * batch_size / 1000, measure_step(module, draw, batch_size)
    return {"batch_size": batch_size, "estimated_s": estimated, "measured_s": measured, "ratio": estimated / measured}


def measure_step(module: Any, draw: Callable[[int], Tensor], batch_size: int) -> float:
    num_rows, classes = batch_size * _STEPS, module.output.shape[1]
    rows = Rows((draw(num_rows),), torch.randint(0, classes, (num_rows,)), lambda inputs: inputs)
    posterior = Posterior({name: module.tensors()[name] for name in module.weight_names}, -4.0)
    options = FitOptions(1.0, 0.0, 1e-4, 1e-3, batch_size, epochs=1, seed=0)
    optimizer = posterior_optimizer(module, posterior, tensor_scales(module), options)
    times: list[float] = []
    elbo, readout = NegativeElbo(posterior, "ard", num_rows), Readout(module.head, classes)
    fit_posterior(
        module,
        posterior,
        elbo,
        Objective(readout),
        optimizer,
        rows,
        options,
        0,
        lambda _: times.append(time.thread_time()),
        lambda *_: None,
    )
    return median(after - before for before, after in pairwise(times))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "resnet18.onnx"
        export(resnet_18(), torch.randn(2, 3, 224, 224), model)
        size = model.stat().st_size
        runs = {
            "after_imports_s": [seconds_after_imports(model) for _ in range(_RUNS)],
            "command_s": [seconds_of_command(model) for _ in range(_RUNS)],
        }
        steps = {name: compare_step(case, Path(folder) / "case.onnx") for name, case in _CASES.items()}
    medians = {name: median(times) for name, times in runs.items()}
    for name, times in runs.items():
        print(f"{name:<16} median {medians[name]:5.2f}  of {', '.join(f'{value:.2f}' for value in times)}  (ResNet-18, {size:,} B)")
    for name, step in steps.items():
        print(f"{name:<16} step of {step['batch_size']:>3}: {step['estimated_s']:.4f} s estimated, {step['measured_s']:.4f} s measured")
    if arguments.json:
        machine = {"processor": platform.machine(), "torch": torch.__version__}
        figures = {"machine": machine, "bytes": size, "runs": runs, "median": medians, "steps": steps}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    missed = [f"{name} {medians[name]:.2f} misses {line:g}" for name, line in _LINES.items() if medians[name] > line]
    print("\n".join(missed) if missed else "every line is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
