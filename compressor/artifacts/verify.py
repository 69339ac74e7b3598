"""Every artifact is read back from disk and compared before a run may succeed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifacts import csr, runtime, sparse_onnx
from compressor.errors import ArtifactMismatch, ClientError

Array = npt.NDArray[Any]

# float32 sums in another order differ by about 1e-6 of the largest output; a wrong weight shows far above this.
TOLERANCE = 1e-4
# A model in half precision is trained in float32, and rounded and run in float16, whose steps are 1e-3.
HALF_TOLERANCE = 1e-2


def verify_model(
    path: Path,
    arrays: Mapping[str, Array],
    inputs: Sequence[Array],
    reference: Array,
    *,
    output: str | None = None,
    tolerance: float | None = None,
) -> None:
    """Compares `model.onnx` with what was trained: its tensors exactly, its outputs in ONNX Runtime within `tolerance`.

    Args:
        path: the file.
        arrays: the tensors that were delivered, by ONNX name; compared in the type that the file has.
        inputs: rows to run on.
        reference: the trained module's output for these rows.
        output: name of the output; the first where it is absent.
        tolerance: largest accepted max|difference| / max|reference|; TOLERANCE, or HALF_TOLERANCE for a file with float16 tensors,
            where it is absent.
    Raises: ArtifactMismatch.
    """
    found = verify_tensors(path, arrays)
    try:
        outputs = runtime.run(path, inputs, output=output)
    except ClientError as error:
        raise _unreadable(path, error) from error
    if tolerance is None:
        tolerance = HALF_TOLERANCE if any(array.dtype == np.float16 for array in found.values()) else TOLERANCE
    check_outputs(path.name, outputs, reference, tolerance)


def verify_tensors(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Compares the tensors of `model.onnx` with `arrays`, as `verify_model`, without running it.

    Returns: all of its float tensors, by ONNX name.
    Raises: ArtifactMismatch.
    """
    try:
        found = sparse_onnx.read(path)
    except ClientError as error:
        raise _unreadable(path, error) from error
    _check_arrays(path, {name: array.astype(found[name].dtype) if name in found else array for name, array in arrays.items()}, found)
    return found


def verify_weights(path: Path, arrays: Mapping[str, Array]) -> None:
    """Compares `weights.safetensors` with the delivered tensors: names, types, shapes, every value and so the nonzeros.

    Args:
        path: the file.
        arrays: the tensors of the delivered model.onnx, read back (`sparse_onnx.read`).
    Raises: ArtifactMismatch.
    """
    try:
        found = csr.read(path)
        matrices = csr.load_csr(path)
    except ClientError as error:
        raise _unreadable(path, error) from error
    if found.keys() != arrays.keys():
        raise ArtifactMismatch(f"{path.name} holds other tensors than were written.", param=path.name)
    _check_arrays(path, {name: csr.to_stored_type(array) for name, array in arrays.items()}, found)
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


def _check_arrays(path: Path, expected: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    for name, array in expected.items():
        if name not in found:
            raise ArtifactMismatch(f"{path.name} lacks the tensor {name!r}.", param=path.name)
        have = found[name]
        if have.dtype != array.dtype or have.shape != array.shape or not np.array_equal(have, array):
            raise ArtifactMismatch(f"{path.name}: the tensor {name!r} is not the one that was written.", param=path.name)
