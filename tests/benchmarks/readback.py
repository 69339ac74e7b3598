"""`python -m tests.benchmarks.readback FOLDER [TEST.parquet]`: artifacts read with stock tools, in a process without our writers.

model.onnx, model.dense.onnx and model.packed.onnx by ONNX Runtime, weights.safetensors by safetensors and scipy's rules, model.bp by the
reader that was written from its layout page. Prints what each gives on the test images as JSON; exits 1 where two of them disagree.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from safetensors import safe_open

from tests.benchmarks.mnist import read_arrays
from tests.compressor.artifacts import stranger

_WRITERS = ("bp", "csr", "dense_onnx", "packed_onnx", "sparse_onnx", "points")
_CLOSE = 1e-4  # of the largest output


def read_back(folder: Path, test: Path | None = None) -> dict[str, dict[str, Any]]:
    """What the process found, by file: bytes, and with a test file the error.

    Raises: subprocess.CalledProcessError where files disagree or one cannot be read.
    """
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.readback", str(folder), *([str(test)] if test else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def _read(folder: Path, test: Path | None) -> dict[str, dict[str, Any]]:
    names = ("model.onnx", "model.dense.onnx", "model.packed.onnx")
    models = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    if (folder / "model.bp").exists():
        models["model.bp"] = stranger.decode((folder / "model.bp").read_bytes())
    if (folder / "weights.safetensors").exists():
        _check_weights(folder / "weights.safetensors", onnx.ModelProto.FromString(models["model.onnx"]))
    images, labels = read_arrays(test) if test else (None, None)
    outputs = {name: _run(model, images) for name, model in models.items()}
    for first, second in (("model.onnx", "model.dense.onnx"), ("model.packed.onnx", "model.bp")):
        if first in outputs and second in outputs:
            _check_same(first, second, outputs[first], outputs[second])
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = {"bytes": path.stat().st_size}
        if path.name in outputs and labels is not None:
            found[path.name]["error"] = float((outputs[path.name].argmax(1) != labels.numpy()).mean())
    if loaded := [name for name in _WRITERS if f"compressor.artifacts.{name}" in sys.modules]:
        raise AssertionError(f"our own writers are here: {loaded}")
    return found


def _run(model: bytes, images: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    spec = session.get_inputs()[0]
    if images is None:
        images = np.random.default_rng(0).random([4, *spec.shape[1:]]).astype(np.float32)
    return np.asarray(session.run(None, {spec.name: np.asarray(images)})[0])


def _check_same(first: str, second: str, one: np.ndarray, other: np.ndarray) -> None:
    difference = float(np.abs(one - other).max() / np.abs(one).max())
    if not difference <= _CLOSE:
        raise AssertionError(f"{first} and {second} differ by {difference:.1e} of the largest output")


def _check_weights(path: Path, model: onnx.ModelProto) -> None:
    """Every matrix of the CSR file is the tensor of model.onnx."""
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "sparse_value":
                sparse = attribute.sparse_tensor
                dense = np.zeros(int(np.prod(sparse.dims)), np.float32)
                dense[onnx.numpy_helper.to_array(sparse.indices)] = onnx.numpy_helper.to_array(sparse.values)
                tensors[node.output[0]] = dense.reshape(tuple(sparse.dims))
            elif attribute.name == "value":
                tensors[node.output[0]] = onnx.numpy_helper.to_array(attribute.t)
    with safe_open(path, framework="numpy") as file:
        for entry in json.loads(file.metadata()["bayespress_csr"])["tensors"]:
            key, shape = entry["key"], tuple(entry["shape"])
            if entry["layout"] == "dense":
                found = file.get_tensor(key)
            else:
                crow, cols, values = (file.get_tensor(f"{key}.{part}") for part in ("crow_indices", "col_indices", "values"))
                matrix = np.zeros((shape[0], int(np.prod(shape[1:]))), values.dtype)
                matrix[np.repeat(np.arange(shape[0]), np.diff(crow.astype(np.int64))), cols.astype(np.int64)] = values
                found = matrix.reshape(shape)
            if not np.array_equal(found, tensors[entry["name"]]):
                raise AssertionError(f"{entry['name']} of {path.name} is not that of model.onnx")


if __name__ == "__main__":
    folder, *test = map(Path, sys.argv[1:])
    print(json.dumps(_read(folder, test[0] if test else None)))
