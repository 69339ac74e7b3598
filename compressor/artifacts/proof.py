"""Whether a smaller graph stands for the whole one: the outputs of both in ONNX Runtime, on the same rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from compressor.artifacts import runtime
from compressor.artifacts.verify import HALF_TOLERANCE, TOLERANCE
from compressor.errors import ClientError
from compressor.graph.write import float_tensors

Array = npt.NDArray[Any]

# Half of what the file itself may be off by, so that it is not the file that fails.
_PART = 0.5


def doubt(whole: ModelProto, small: ModelProto, rows: Sequence[Array], output: str) -> str | None:
    """Why `small` may not stand for `whole`; None where all float outputs that it has are the same, up to the order of summation.

    Args:
        rows: what to run on, one array for each input.
        output: name of the one that counts; another that ONNX Runtime does not give for the whole graph is not looked at.
    """
    if not rows:
        return "there are no rows on which the graphs could be compared"
    half = any(array.dtype == np.float16 for array in float_tensors(whole).values())
    tolerance = _PART * (HALF_TOLERANCE if half else TOLERANCE)
    for name in dict.fromkeys([output, *(info.name for info in small.graph.output)]):
        try:
            expected = runtime.run(whole.SerializeToString(), rows, output=name)
        except (ClientError, ValueError) as error:
            if name == output:
                return f"the whole graph does not run ({error})"
            continue
        if expected.dtype.kind != "f":
            continue
        try:
            found = runtime.run(small.SerializeToString(), rows, output=name)
        except (ClientError, ValueError) as error:
            return f"the smaller graph does not run ({error})"
        if why := _difference(expected, found, tolerance):
            return f"{name!r} {why}"
    return None


def _difference(expected: Array, found: Array, tolerance: float) -> str | None:
    """Numbers that are not finite say nothing, but there must be others."""
    if found.shape != expected.shape:
        return f"has the shape {list(found.shape)} instead of {list(expected.shape)}"
    finite = np.isfinite(expected)
    if not finite.any():
        return "holds no finite number on these rows"
    known = expected[finite].astype(np.float64)
    difference = float(np.abs(found[finite].astype(np.float64) - known).max()) / (float(np.abs(known).max()) or 1.0)
    return None if difference <= tolerance else f"differs by {difference:.1e} of the largest"
