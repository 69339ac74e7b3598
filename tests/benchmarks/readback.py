"""`python -m tests.benchmarks.readback FOLDER [--test TEST.parquet] [--model UPLOAD.onnx]`: artifacts read without our writers.

model.onnx, model.dense.onnx and model.packed.onnx by ONNX Runtime, model.bp by the reader that was written from its layout page, and
weights.safetensors, curve.safetensors and split.npz by decoders of the same kind. Prints what each gives on the test images as JSON; exits
with 1 where two of them, or a file and the report, disagree.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.benchmarks import decoders
from tests.benchmarks.decoders import Array, Curve, Tensors, check
from tests.benchmarks.mnist import read_arrays
from tests.compressor.artifacts import stranger

_WRITERS = ("bp", "csr", "dense_onnx", "packed_onnx", "sparse_onnx", "points")
_CLOSE = 1e-4  # of the largest output


def read_back(folder: Path, test: Path | None = None, model: Path | None = None) -> dict[str, dict[str, Any]]:
    """What the process found, by file: bytes, and with a test file the error.

    Args:
        folder: of a run or a selection.
        model: the upload, to which the curve's delivered point belongs.
    Raises: subprocess.CalledProcessError where files disagree or one cannot be read.
    """
    options = [*(["--test", str(test)] if test else []), *(["--model", str(model)] if model else [])]
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.readback", str(folder), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def _read(folder: Path, test: Path | None, upload: Path | None) -> dict[str, dict[str, Any]]:
    images, labels = read_arrays(test) if test else (None, None)
    outputs = check_folder(folder, None if images is None else images.numpy(), upload)
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = {"bytes": path.stat().st_size}
        if path.name in outputs and labels is not None:
            found[path.name]["error"] = float((outputs[path.name].argmax(1) != labels.numpy()).mean())
    if loaded := [name for name in _WRITERS if f"compressor.artifacts.{name}" in sys.modules]:
        raise AssertionError(f"our own writers are here: {loaded}")
    return found


def check_folder(folder: Path, images: Array | None = None, upload: Path | None = None) -> dict[str, Array]:
    """Decodes every file and holds them against each other and the report. Returns: outputs by file.

    Raises: AssertionError.
    """
    for report in (folder / name for name in ("report.json", "selection.json") if (folder / name).exists()):
        _check_report(folder, json.loads(report.read_bytes()))
    names = ("model.onnx", "model.dense.onnx", "model.packed.onnx")
    models = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    if (folder / "model.bp").exists():
        models["model.bp"] = stranger.decode((folder / "model.bp").read_bytes())
    outputs = {name: _run(model, images) for name, model in models.items()}
    for first, second in (("model.onnx", "model.dense.onnx"), ("model.packed.onnx", "model.bp")):
        if first in outputs and second in outputs:
            _check_same(first, second, outputs[first], outputs[second])
    weights = decoders.weights(folder / "weights.safetensors") if (folder / "weights.safetensors").exists() else {}
    tensors = _tensors(onnx.ModelProto.FromString(models["model.onnx"]))
    for name, (array, _) in weights.items():
        check(np.array_equal(array, tensors[name]), f"{name} of weights.safetensors is not that of model.onnx")
    if (folder / "curve.safetensors").exists():
        _check_curve(folder, decoders.curve(folder / "curve.safetensors"), weights, upload, images, outputs["model.onnx"])
    return outputs


def _run(model: bytes, images: Array | None) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    spec = session.get_inputs()[0]
    if images is None:
        images = np.random.default_rng(0).random([4, *spec.shape[1:]]).astype(np.float32)
    return np.asarray(session.run(None, {spec.name: images})[0])


def _check_same(first: str, second: str, one: Array, other: Array) -> None:
    difference = float(np.abs(one - other).max() / np.abs(one).max())
    check(difference <= _CLOSE, f"{first} and {second} differ by {difference:.1e} of the largest output")


def _tensors(model: onnx.ModelProto) -> dict[str, Array]:
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "sparse_value":
                sparse = attribute.sparse_tensor
                values = onnx.numpy_helper.to_array(sparse.values)
                dense = np.zeros(int(np.prod(sparse.dims)), values.dtype)
                dense[onnx.numpy_helper.to_array(sparse.indices)] = values
                tensors[node.output[0]] = dense.reshape(tuple(sparse.dims))
            elif attribute.name == "value":
                tensors[node.output[0]] = onnx.numpy_helper.to_array(attribute.t)
    return tensors


def _check_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Sizes and digests of the files that lie here, and of a run the rows of its parts."""
    for name, size in report["bytes"]["artifacts"].items():
        check((folder / name).stat().st_size == size, f"{name} has another size than the report says")
    digests = report["provenance"]["sha256"] if "provenance" in report else report["sha256"]
    for name, digest in digests.items():
        if name in report["bytes"]["artifacts"]:
            check(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, f"{name} is not the file of the report")
    if (folder / "split.npz").exists():
        sizes = {part: len(rows) for part, rows in decoders.split(folder / "split.npz").items()}
        inputs = report["inputs"]
        expected = {part: inputs[f"num_{part}"] for part in ("train", *inputs["carved"])}
        check(sizes == expected, f"split.npz has {sizes}, the report {expected}")


def _check_curve(folder: Path, curve: Curve, weights: Tensors, upload: Path | None, images: Array | None, outputs: Array) -> None:
    """The points are those of the report, and the delivered one is what model.onnx and weights.safetensors hold, in the uploaded shapes."""
    report = json.loads((folder / "report.json").read_bytes())
    check(curve.head["points"] == report["curve"], "curve.safetensors has other points than the report")
    check(curve.head["model_sha256"] == report["provenance"]["sha256"]["model"], "curve.safetensors is of another model")
    for point in (curve.points[number] for number, described in enumerate(report["curve"]) if described["chosen"]):
        for name, (array, sigma) in weights.items():
            if array.ndim >= 2 and name in point:
                pairs = _pairs(point[name][0], _deviations(point[name][1]) if sigma is not None else None)
                check(_is_part(_pairs(array, sigma), pairs), f"{name} of weights.safetensors is not that of the curve's point")
        if upload is not None:
            check(hashlib.sha256(upload.read_bytes()).hexdigest() == curve.head["model_sha256"], "the curve is of another model")
            whole = _with(onnx.load(upload), {name: array for name, (array, _) in point.items()})
            _check_same("model.onnx", "the curve's point", outputs, _run(whole.SerializeToString(), images))


def _deviations(log_sigma2: Array | None) -> Array | None:
    return None if log_sigma2 is None else np.exp(log_sigma2.astype(np.float64) / 2).astype(np.float32)


def _pairs(array: Array, sigma: Array | None) -> Iterator[tuple[float, ...]]:
    """The nonzeros in order, each with its deviation."""
    kept = array != 0
    columns = [array[kept]] + ([] if sigma is None else [sigma[kept]])
    return zip(*(column.tolist() for column in columns), strict=True)


def _is_part(some: Iterator[tuple[float, ...]], all_of_them: Iterator[tuple[float, ...]]) -> bool:
    """Whether the first are among the second, in their order: weights of dead units are left out of a graph."""
    return all(any(pair == other for other in all_of_them) for pair in some)


def _with(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> onnx.ModelProto:
    places = {tensor.name: tensor for tensor in model.graph.initializer}
    places |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    for name, array in arrays.items():
        places[name].CopyFrom(onnx.numpy_helper.from_array(array, places[name].name))
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(_read(arguments.folder, arguments.test, arguments.model)))
