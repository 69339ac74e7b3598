"""`python -m tests.benchmarks.runtimes`: the delivered files of networks of the zoo in other runtimes than the one that we test with.

A VGG, a ResNet, a transformer and an LSTM, as PyTorch exports them, are pruned by magnitude to 95 %, with a third of the outputs of every
linear layer and convolution dead; model.onnx, model.dense.onnx and model.packed.onnx of each are run on the same rows in ONNX Runtime
1.20.1 (from PyPI, in a cache folder), in today's, and in OpenVINO where it is installed. Also, the dense form's latency beside the
upload's, in turns. Exits 1 where an output differs from that of the pruned network by more than 1e-4 of the largest.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from compressor import CompressionConfig
from compressor.admission import AdmittedModel, admit
from compressor.artifacts import runtime
from compressor.artifacts.grid import round_step, to_grid
from compressor.delivery.files import DENSE, MODEL, PACKED, Delivered, deliver, write_model
from compressor.graph.write import float_tensors, write_arrays
from compressor.quantisation import Quantised
from compressor.report import MetricValue
from tests.benchmarks.readback import read_back
from tests.benchmarks.results import Line, check, write_json
from tests.benchmarks.stock import run_alone
from tests.benchmarks.zoo.files import exports_of

OLD = "1.20.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bayespress"
_NETWORKS = ("vgg", "resnet", "transformer_encoder", "lstm")
_EXPORT = "dynamo"
_SPARSITY, _DEAD = 0.95, 1 / 3
_CLOSE = 1e-4
_LEVELS = 7.0  # of a grid, to each side


def prune(upload: AdmittedModel, seed: int) -> dict[str, torch.Tensor]:
    """The upload's tensors with the smallest weights of each at 0, all that make a third of its units among them."""
    random = np.random.default_rng(seed)
    tensors = {name: tensor.detach().clone() for name, tensor in upload.module.state().items()}
    weights = [name for name in upload.module.weight_names if tensors[name].ndim >= 2]
    for name in weights:
        axis = upload.module.group_axes.get(name)
        if axis is not None and axis.axis < tensors[name].ndim:
            size = tensors[name].shape[axis.axis]
            dead = torch.from_numpy(random.permutation(size)[: int(_DEAD * size)])
            tensors[name].index_fill_(axis.axis, dead, 0)
    for name in weights:
        sizes = tensors[name].abs()
        tensors[name][sizes <= sizes.flatten().kthvalue(max(1, int(_SPARSITY * sizes.numel()))).values] = 0
    return tensors


def quantised(delivered: Delivered) -> Quantised:
    """Every tensor on a grid of its own size, without training."""
    arrays = {name: array for name, array in float_tensors(delivered.model).items() if array.any()}
    grids = {name: to_grid(array, round_step(float(np.abs(array).max()) / _LEVELS)) for name, array in arrays.items() if array.ndim >= 2}
    nothing = MetricValue(value=0, interval=(0, 0), split="validation", num_examples=0)
    return Quantised(write_arrays(delivered.model, {name: grid.values() for name, grid in grids.items()}), grids, nothing, 1.0)


def install_old() -> Path:
    """The folder of the old ONNX Runtime, from PyPI where it is not there yet."""
    folder = CACHE / f"onnxruntime-{OLD}"
    if not (folder / "onnxruntime").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), f"onnxruntime=={OLD}"]
        subprocess.run(command, check=True)
    return folder


def run_onnxruntime(model: Path, rows: Mapping[str, np.ndarray], output: str, wanted: str, packages: Path | None = None) -> np.ndarray:
    found, its_version = run_alone(model, rows, output, packages)
    if its_version != wanted:
        raise AssertionError(f"this is ONNX Runtime {its_version}, not {wanted}")
    return found


def run_openvino(model: Path, rows: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    import openvino  # an extra

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(dict(rows))[output])


def difference(run: Callable[[Path], np.ndarray], model: Path, reference: np.ndarray) -> float:
    """Largest difference as a part of the largest output; infinite where the runtime does not take the file, and why on stderr."""
    try:
        return float(np.abs(run(model) - reference).max() / np.abs(reference).max())
    except Exception as error:
        print(f"{model.name}: {str(error).strip()[-300:]}", file=sys.stderr)
        return math.inf


def run_network(name: str, cache: Path) -> dict[str, Any]:
    exported = exports_of(name, cache).paths
    path = next(file for file in exported if f".{_EXPORT}." in file.name)
    upload = admit(path)
    output = upload.module.output.name
    with np.load(path.with_suffix(".npz")) as file:
        rows = {spec.name: file[spec.name] for spec in upload.module.inputs}
    tensors = prune(upload, seed=0)
    delivered = deliver(upload, tensors, {})
    with torch.no_grad():
        for tensor_name, tensor in upload.module.state().items():
            tensor.copy_(tensors[tensor_name])
        exact = upload.module.eval()(*(torch.from_numpy(array) for array in rows.values())).numpy()
    delivered = replace(delivered, quantised=quantised(delivered))
    assert delivered.quantised is not None
    rounded = runtime.run(delivered.quantised.model.SerializeToString(), list(rows.values()), output=output, batch_size=len(exact))
    with tempfile.TemporaryDirectory() as scratch:
        folder, old, today = Path(scratch), install_old(), onnxruntime.__version__
        write_model(folder, delivered, CompressionConfig(formats=("packed",)))
        read_back(folder)
        runtimes: dict[str, Callable[[Path], np.ndarray]] = {
            f"onnxruntime {OLD}": lambda model: run_onnxruntime(model, rows, output, OLD, old),
            f"onnxruntime {today}": lambda model: run_onnxruntime(model, rows, output, today),
        }
        if find_spec("openvino"):
            runtimes[f"openvino {version('openvino')}"] = lambda model: run_openvino(model, rows, output)
        differences = {}
        for form, reference in ((MODEL, exact), (DENSE, exact), (PACKED, rounded)):
            differences[form] = {label: difference(run, folder / form, reference) for label, run in runtimes.items()}
        latency = {
            batch: runtime.measure_latency(
                upload.inference.SerializeToString(), folder / DENSE, list(rows.values()), output=output, batch_size=batch
            )
            for batch in (1, 64)
        }
        whole = sum(array.size for array in float_tensors(upload.proto).values())
        return {
            "file": path.name,
            "differences": differences,
            "parameters_removed": 1 - sum(array.size for array in float_tensors(delivered.model).values()) / whole,
            "bytes": {form: (folder / form).stat().st_size for form in (MODEL, DENSE, PACKED)} | {"upload": path.stat().st_size},
            "faster": {batch: one.dense.median_ms / one.delivered.median_ms for batch, one in latency.items()},
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=_NETWORKS)
    parser.add_argument("--cache", type=Path, default=CACHE / "zoo", help="folder of exported files and environments")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found, lines = {}, []
    for name in arguments.networks:
        found[name] = row = run_network(name, arguments.cache)
        write_json(arguments.json, {"networks": found})
        sizes = ", ".join(f"{form} {size:,}" for form, size in row["bytes"].items())
        faster = ", ".join(f"{ratio:.2f} at batch {batch}" for batch, ratio in row["faster"].items())
        print(f"{row['file']}: {row['parameters_removed']:.0%} of the parameters removed; bytes: {sizes}; dense form faster: {faster}")
        for form, differences in row["differences"].items():
            lines += [Line(f"{name}, {form}, {label}", value, "at most", _CLOSE) for label, value in differences.items()]
    return check(lines)


if __name__ == "__main__":
    sys.exit(main())
