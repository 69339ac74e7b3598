"""`python -m tests.benchmarks.zoo.builders FAMILY NAME FOLDER`: writes the exports of one architecture.

For each export NAME.EXPORT.onnx and NAME.EXPORT.npz, the fixed batch by the file's own input names. Last of all, and so the mark that
all is there, NAME.json: the versions, and for each export the reason why there is no file, empty where there is one.
"""

import importlib
import json
import random
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx

from tests.benchmarks.zoo.builders.built import Export

_PACKAGES = ("torch", "onnx", "onnxscript", "timm", "transformers", "scikit-learn", "skl2onnx", "tensorflow-cpu", "keras", "tf2onnx")


def write_exports(family: str, name: str, folder: Path) -> None:
    module = importlib.import_module(f"tests.benchmarks.zoo.builders.{family}")
    _seed()
    built = getattr(module, name)()
    reasons = {export: _write(folder / f"{name}.{export}.onnx", write, built.inputs) for export, write in built.exports.items()}
    note = {"versions": _versions(), "exports": reasons}
    (folder / f"{name}.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # scikit-learn draws from it
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(1)
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)


def _write(path: Path, write: Export, inputs: Sequence[np.ndarray]) -> str:
    try:
        write(path)
        np.savez(path.with_suffix(".npz"), **dict(zip(_input_names(path), inputs, strict=True)))
    except Exception as error:  # whatever an exporter raises about its own code
        path.unlink(missing_ok=True)
        return _reason(error)
    return ""


def _input_names(path: Path) -> list[str]:
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [info.name for info in graph.input if info.name not in constants]


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom: the dynamo exporter wraps the cause in pages about its own steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    write_exports(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
