"""A model file in ONNX Runtime in a process of its own, into which nothing of this project is imported: what a stranger gets of it."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_RUN = """
import sys
packages, model, rows, output, result = sys.argv[1:]
if packages:
    sys.path.insert(0, packages)
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
specs = session.get_inputs()
with np.load(rows) as file:
    given = {spec.name: file[spec.name] for spec in specs}
count = len(given[specs[0].name])
size = next((spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)), count)  # built into the graph
places = [np.minimum(np.arange(start, start + size), count - 1) for start in range(0, count, size)]
outputs = [session.run([output], {name: array[place] for name, array in given.items()})[0] for place in places]
np.save(result, np.concatenate(outputs)[:count])
print(onnxruntime.__version__)
"""


def run_alone(model: Path, rows: Mapping[str, np.ndarray], output: str, packages: Path | None = None) -> tuple[np.ndarray, str]:
    """Args:    rows: by the names of the inputs; packages: a folder that goes before all others that Python imports from.
    Returns: the output, and the version of ONNX Runtime.
    Raises:  subprocess.CalledProcessError; why is on stderr.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, result = Path(scratch) / "rows.npz", Path(scratch) / "output.npy"
        np.savez(given, **rows)  # type: ignore[arg-type]  # numpy takes allow_pickle for one of them
        # -I: neither the working directory nor PYTHONPATH.
        command = [sys.executable, "-I", "-W", "ignore", "-c", _RUN, str(packages or ""), str(model), str(given), output, str(result)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found: np.ndarray = np.load(result)
        return found, done.stdout.strip()
