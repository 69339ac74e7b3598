"""What a run leaves in its folder beside the report: the model in all its forms, the curve and the split; read back and compared."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from compressor.admission import AdmittedModel
from compressor.artifacts import points
from compressor.config import CompressionConfig
from compressor.data.dataset import Parts
from compressor.data.split import read_split, write_split
from compressor.delivery.files import BP, DENSE, PACKED, Delivered, file_sha256, forms_of, verify_files, write_form
from compressor.errors import ArtifactMismatch, CompressionError
from compressor.graph.write import float_tensors
from compressor.intake import Baseline, to_arrays
from compressor.protocol import CURVE
from compressor.report import CurvePoint
from compressor.search import Outcome

SPLIT = "split.npz"
_VERIFIED_ROWS = 256
_OPTIONAL = (PACKED, BP)  # hours of training are not thrown away over these


def write_artifacts(
    out_dir: Path,
    upload: AdmittedModel,
    config: CompressionConfig,
    baseline: Baseline,
    outcome: Outcome,
    delivered: Delivered,
    parts: Parts,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The delivered model in all forms, curve.safetensors of all points, and split.npz. An optional form that cannot be had is left out.

    Returns: the names of the model's files, and why one is missing.
    """
    names: list[str] = []
    warnings = list(delivered.warnings)
    for name in forms_of(delivered, config):
        try:
            write_form(out_dir / name, delivered, config)
            names.append(name)
        except (CompressionError, onnx.checker.ValidationError) as error:
            if name not in _OPTIONAL:
                raise
            (out_dir / name).unlink(missing_ok=True)  # one of an earlier run
            warnings.append(_without(name, error))
    write_split(out_dir / SPLIT, _split_of(parts))
    curve = _curve(upload, config, baseline, outcome)
    points.write(out_dir / CURVE, curve, outcome.points)
    points.verify_points(out_dir / CURVE, curve, outcome.points, outcome.tensors)
    return tuple(names), tuple(warnings)


def validation_rows(parts: Parts, baseline: Baseline) -> list[npt.NDArray[Any]]:
    """Some, as ONNX Runtime takes them, on which graphs and files are compared."""
    return to_arrays(parts.validation.take(np.arange(min(_VERIFIED_ROWS, len(parts.validation)))), baseline.scaling)


def verify(
    out_dir: Path,
    upload: AdmittedModel,
    config: CompressionConfig,
    baseline: Baseline,
    delivered: Delivered,
    names: Sequence[str],
    parts: Parts,
) -> tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]:
    """Reads every file back and compares its outputs with those of the module, which holds the delivered tensors.

    An optional form that is not right is taken away, and weights in float16 that do not give the outputs are written as float32.

    Returns: the runtimes in which each form of the model was run, and what is missing and why.
    Raises: ArtifactMismatch.
    """
    arrays, output = validation_rows(parts, baseline), upload.module.output.name
    upload.module.eval()
    with torch.no_grad():
        expected = upload.module(*baseline.validation.take(slice(0, len(arrays[0])))[0]).cpu().numpy()
    checked: dict[str, tuple[str, ...]] = {}
    warnings: list[str] = []
    for name in names:
        try:
            checked |= verify_files(out_dir, delivered, config, [name], arrays, expected, output)
        except ArtifactMismatch as error:
            if name in _OPTIONAL:
                (out_dir / name).unlink()
                warnings.append(_without(name, error))
            elif name == DENSE and config.weight_dtype == "float16":
                whole = config.model_copy(update={"weight_dtype": "float32"})
                write_form(out_dir / name, delivered, whole)
                checked |= verify_files(out_dir, delivered, whole, [name], arrays, expected, output)
                warnings.append(f"{name} is in float32: with weights in float16 it was not right. {error.detail}")
            else:
                raise
    split, written = read_split(out_dir / SPLIT), _split_of(parts)
    if split.keys() != written.keys() or any(not np.array_equal(split[part], rows) for part, rows in written.items()):
        raise ArtifactMismatch("split.npz does not hold the rows of the run.", param=SPLIT)
    return checked, tuple(warnings)


def _without(name: str, error: CompressionError | onnx.checker.ValidationError) -> str:
    detail = f"{error.detail} {error.suggestion or ''}".strip() if isinstance(error, CompressionError) else str(error)
    return f"There is no {name}: {detail}"


def _curve(upload: AdmittedModel, config: CompressionConfig, baseline: Baseline, outcome: Outcome) -> points.Curve:
    floats = {name: array for name, array in float_tensors(upload.proto).items() if array.ndim >= 2}
    numel = sum(array.size for array in floats.values())
    return points.Curve(
        model_sha256=file_sha256(upload.path),
        architecture=config.architecture,
        image_size=config.image_size,
        output=config.output,
        numel=numel,
        metric=baseline.kind.name,
        dense_metric=baseline.dense.value,
        fixed_nnz=sum(int(np.count_nonzero(array)) for name, array in floats.items() if name not in outcome.tensors),
        tensors=points.specs_of(outcome.tensors),
        points=curve_points(outcome, numel),
    )


def _split_of(parts: Parts) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of the train file by part; all of them, in order, where nothing was carved."""
    return parts.indices or {"train": np.arange(len(parts.train), dtype=np.int64)}


def curve_points(outcome: Outcome, numel: int) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(
            beta=point.beta,
            threshold=point.threshold if math.isfinite(point.threshold) else None,
            layer_thresholds=point.layer_thresholds,
            nnz=point.nnz,
            compression_ratio=numel / max(1, point.nnz),
            metric=point.metric,
            chosen=number == outcome.chosen and outcome.delivered == "variational",
        )
        for number, point in enumerate(outcome.curve)
    )
