"""What must hold for any file: a CompressionError with a remedy, or a model that gives what ONNX Runtime gives on rows of its own."""

from pathlib import Path

import numpy as np
import torch

from compressor.admission import AdmittedModel, admit, training_cost
from compressor.artifacts import runtime
from compressor.config import CompressionConfig
from compressor.errors import CompressionError, ModelError, UnsupportedTask

# Twice those of admission, which has seen other rows.
_TOLERANCE, _HALF_TOLERANCE = 2e-3, 2e-2


class WrongResult(Exception):
    """A model was let in, and gives something else than ONNX Runtime."""


def judge(path: Path) -> str:
    """The code of the refusal, or "admitted".

    Raises: whatever is neither.
    """
    try:
        model = admit(path, CompressionConfig())
    except (ModelError, UnsupportedTask) as error:
        if not error.suggestion or not error.param:
            raise AssertionError(f"{error.code} without a place or a remedy: {error.detail}") from error
        return error.code
    if model.module.example is None:
        return "admitted, not run"
    rows = [_other(tensor) for tensor in model.module.example]
    _compare(model, rows)
    try:
        training_cost(model.module, rows)
    except CompressionError as error:
        return f"admitted, then {error.code}"
    return "admitted"


def _other(tensor: torch.Tensor) -> torch.Tensor:
    """Other random rows of the same kind: integers stay 0 and 1, which are tokens that any model has."""
    generator = torch.Generator().manual_seed(1)
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    return torch.randint(0, 2, tensor.shape, generator=generator).to(tensor.dtype)


def _compare(model: AdmittedModel, rows: list[torch.Tensor]) -> None:
    module = model.module.eval()
    with torch.no_grad():
        ours = module(*rows).double().numpy()
    arrays = [tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy() for tensor in rows]
    found = runtime.run(model.inference.SerializeToString(), arrays, output=module.output.name)
    theirs = found.astype(np.float64)
    if ours.shape != theirs.shape:
        raise WrongResult(f"shape {ours.shape} instead of {theirs.shape}")
    finite = np.isfinite(ours) & np.isfinite(theirs)
    scale = float(np.abs(theirs[finite]).max(initial=0.0)) or 1.0
    difference = float(np.abs(ours - theirs)[finite].max(initial=0.0)) / scale
    if difference > (_HALF_TOLERANCE if found.dtype == np.float16 else _TOLERANCE):
        raise WrongResult(f"values that differ by {difference:.1e} of the largest")
    if found.dtype != np.float16 and not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        raise WrongResult("numbers here that are none there")
