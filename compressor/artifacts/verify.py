"""Every artifact is read back from disk and compared before a run may succeed."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from compressor.artifacts import csr, runtime
from compressor.artifacts.second_runtime import run_elsewhere
from compressor.errors import ArtifactMismatch, ClientError

Array = npt.NDArray[Any]

# float32 sums in another order differ by about 1e-6 of the largest output; a wrong weight shows far above this.
TOLERANCE = 1e-4
# A model in half precision is trained in float32, and rounded and run in float16, whose steps are 1e-3.
HALF_TOLERANCE = 1e-2
_SECOND_ROWS = 8


def verify_outputs(
    what: str,
    data: bytes,
    materialised: ModelProto,
    inputs: Sequence[Array],
    reference: Array,
    *,
    output: str,
    tolerance: float = TOLERANCE,
) -> tuple[str, ...]:
    """Compares the outputs of a model file with those of the trained module: in ONNX Runtime, and on a few rows in a second runtime.

    Args:
        what: name of the file.
        data: the file, or the ONNX file that is made of it.
        materialised: the same with dense initialisers.
        inputs: rows to run on.
        reference: the trained module's output for these rows.
        output: name of the output.
        tolerance: largest accepted max|difference| / max|reference|.
    Returns: the runtimes, with their versions; the second one may lack an operator of the graph.
    Raises: ArtifactMismatch.
    """
    try:
        outputs = runtime.run(data, inputs, output=output)
    except ClientError as error:
        raise ArtifactMismatch(f"{what} does not run: {error.detail}", param=what) from error
    check_outputs(what, outputs, reference, tolerance)
    first = f"onnxruntime {version('onnxruntime')}"
    rows = _batch_of(ModelProto.FromString(data), inputs)
    elsewhere = run_elsewhere(ModelProto.FromString(data), materialised, rows, output)
    if elsewhere is None:
        return (first,)
    count = min(len(elsewhere.values), len(reference))
    check_outputs(f"{what}, in {elsewhere.runtime},", elsewhere.values[:count], reference[:count], tolerance)
    return first, elsewhere.runtime


def _batch_of(model: ModelProto, inputs: Sequence[Array]) -> list[Array]:
    """A few rows, or as many as the graph has built in, the last one repeated."""
    sizes = [info.type.tensor_type.shape.dim[0].dim_value for info in model.graph.input if info.type.tensor_type.shape.dim]
    size = max([_SECOND_ROWS, *sizes]) if not any(sizes) else max(sizes)
    index = np.minimum(np.arange(size), len(inputs[0]) - 1)
    return [array[index] for array in inputs]


def verify_weights(path: Path, arrays: Mapping[str, Array], sigmas: Mapping[str, Array]) -> None:
    """Compares `weights.safetensors` with the delivered tensors: names, types, shapes, every value and so the nonzeros.

    Args:
        path: the file.
        arrays: the tensors of the delivered model.onnx, read back (`sparse_onnx.read`).
        sigmas: the posterior's standard deviations that it should hold.
    Raises: ArtifactMismatch.
    """
    try:
        found, found_sigmas = csr.read(path), csr.read_sigmas(path)
        matrices = csr.load_csr(path)
    except ClientError as error:
        raise _unreadable(path, error) from error
    if found.keys() != arrays.keys():
        raise ArtifactMismatch(f"{path.name} holds other tensors than were written.", param=path.name)
    check_tensors(path.name, {name: csr.to_stored_type(array) for name, array in arrays.items()}, found)
    written = {name: np.where(arrays[name] != 0, sigma, 0).astype(np.float32) for name, sigma in sigmas.items()}
    if found_sigmas.keys() != written.keys() or any(not np.array_equal(found_sigmas[name], sigma) for name, sigma in written.items()):
        raise ArtifactMismatch(f"{path.name} does not hold the posterior's standard deviations.", param=path.name)
    for name, matrix in matrices.items():
        if matrix.count_nonzero() != np.count_nonzero(arrays[name]):
            raise ArtifactMismatch(f"{path.name}: the matrix {name!r} has another number of nonzeros.", param=path.name)


def check_outputs(what: str, outputs: Array, reference: Array, tolerance: float = TOLERANCE) -> None:
    """Compares outputs of two forms of one model, as max|difference| / max|reference|.

    Raises: ArtifactMismatch where they differ by more than `tolerance`, in shape, or where one is not finite.
    """
    if outputs.shape != reference.shape:
        raise ArtifactMismatch(f"{what} gives outputs of shape {list(outputs.shape)} instead of {list(reference.shape)}.", param=what)
    if outputs.size == 0:
        return
    scale = float(np.abs(reference).max())
    difference = float(np.abs(outputs.astype(np.float64) - reference.astype(np.float64)).max()) / (scale or 1.0)
    # Written so that NaN fails.
    if not difference <= tolerance:
        raise ArtifactMismatch(
            f"{what} gives outputs that differ from the trained module's by {difference:.1e} of the largest; {tolerance:.0e} is accepted.",
            param=what,
        )


def _unreadable(path: Path, error: ClientError) -> ArtifactMismatch:
    return ArtifactMismatch(f"{path.name} cannot be read back: {error.detail}", param=path.name)


def check_tensors(what: str, expected: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    """Compares tensors by name: types, shapes and every value. `found` may have more.

    Raises: ArtifactMismatch.
    """
    for name, array in expected.items():
        if name not in found:
            raise ArtifactMismatch(f"{what} lacks the tensor {name!r}.", param=what)
        have = found[name]
        if have.dtype != array.dtype or have.shape != array.shape or not np.array_equal(have, array):
            raise ArtifactMismatch(f"{what}: the tensor {name!r} is not the one that was written.", param=what)
