"""Every artifact is read back from disk and compared before a run may succeed."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from compressor.artifacts import csr, runtime
from compressor.artifacts.second_runtime import SecondRuntime, second_runtimes, some_rows
from compressor.errors import ArtifactMismatch, ClientError

Array = npt.NDArray[Any]

# float32 sums in another order differ by about 1e-6 of the largest output; a wrong weight shows far above this.
TOLERANCE = 1e-4
# A model in half precision is trained in float32, and rounded and run in float16, whose steps are 1e-3.
HALF_TOLERANCE = 1e-2
# A second runtime that is off by more than a part of the tolerance where the file has no share in it is no judge of the file.
_OF_A_JUDGE = 0.25
_MAX_REASON = 160


def verify_outputs(
    what: str,
    data: bytes,
    materialised: ModelProto,
    inputs: Sequence[Array],
    reference: Array,
    *,
    output: str,
    tolerance: float = TOLERANCE,
    whole: Callable[[], tuple[ModelProto, Array]] | None = None,
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
        whole: the uploaded graph with the trained tensors, dense, and the trained module's output for it; `materialised` and `reference`
            where it is None. A second runtime that does not load it, or computes it otherwise, says nothing of the file: then the next
            one is asked.
    Returns: the runtimes, with their versions, and why it was not the first choice; of the second ones none may know all operators.
    Raises: ArtifactMismatch.
    """
    try:
        outputs = runtime.run(data, inputs, output=output)
    except ClientError as error:
        raise ArtifactMismatch(f"{what} does not run: {error.detail}", param=what) from error
    check_outputs(what, outputs, reference, tolerance)
    first = f"onnxruntime {version('onnxruntime')}"
    model, why = ModelProto.FromString(data), ""
    for second in second_runtimes():
        fault = _fault(what, second, model if second.reads_sparse else materialised, inputs, reference, output, tolerance)
        if fault is None:
            return first, second.name + why
        dense, expected = (materialised, reference) if whole is None else whole()
        of_dense = _fault("the uploaded graph", second, dense, inputs, expected, output, _OF_A_JUDGE * tolerance)
        if of_dense is None:
            raise fault
        why = f", since {of_dense.detail.rstrip('.')}"
    return (first,)


def _fault(
    what: str, second: SecondRuntime, model: ModelProto, inputs: Sequence[Array], reference: Array, output: str, tolerance: float
) -> ArtifactMismatch | None:
    """What is wrong with a model in a second runtime, or None."""
    feeds = some_rows(model, inputs)
    try:
        values = second.run(model, feeds, output)
    except Exception as error:  # none of them has a base class of what it raises
        reason = " ".join(str(error).split())[:_MAX_REASON]
        return ArtifactMismatch(f"{what} does not run in {second.name}: {reason}", param=what)
    try:
        check_outputs(f"{what}, in {second.name},", values[: len(reference)], reference[: len(values)], tolerance)
    except ArtifactMismatch as error:
        return error
    return None


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
