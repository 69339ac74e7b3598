"""What a run leaves in its folder beside the report: the model in all its forms, the curve and the split; read back and compared."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from compressor.admission import AdmittedModel
from compressor.artifacts import points
from compressor.config import CompressionConfig
from compressor.data.dataset import Parts
from compressor.data.split import read_split, write_split
from compressor.delivery.files import PACKED, Delivered, file_sha256, verify_files, write_model
from compressor.errors import ArtifactMismatch, CannotPack
from compressor.graph.write import float_tensors
from compressor.intake import Baseline, to_arrays
from compressor.protocol import CURVE
from compressor.report import CurvePoint
from compressor.search import Outcome

SPLIT = "split.npz"
_VERIFIED_ROWS = 256


def write_artifacts(
    out_dir: Path,
    upload: AdmittedModel,
    config: CompressionConfig,
    baseline: Baseline,
    outcome: Outcome,
    delivered: Delivered,
    parts: Parts,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The delivered model in all forms, curve.safetensors of all points, and split.npz. A form that cannot be had does not end the run.

    Returns: the names of the model's files, and why one is missing.
    """
    warnings = delivered.warnings
    try:
        names = write_model(out_dir, delivered, config)
    except CannotPack as error:
        warnings += (f"There is no {PACKED}: {error.detail} {error.suggestion}",)
        others = tuple(form for form in config.formats if form != "packed")
        names = write_model(out_dir, delivered, config.model_copy(update={"formats": others}))
    write_split(out_dir / SPLIT, _split_of(parts))
    curve = _curve(upload, config, baseline, outcome)
    points.write(out_dir / CURVE, curve, outcome.points)
    points.verify_points(out_dir / CURVE, curve, outcome.points, outcome.tensors)
    return names, warnings


def verify(
    out_dir: Path,
    upload: AdmittedModel,
    config: CompressionConfig,
    baseline: Baseline,
    delivered: Delivered,
    names: Sequence[str],
    parts: Parts,
) -> Mapping[str, tuple[str, ...]]:
    """Reads every file back and compares its outputs with those of the module, which holds the delivered tensors.

    Returns: the runtimes in which each form of the model was run.
    Raises: ArtifactMismatch.
    """
    rows = parts.validation.take(np.arange(min(_VERIFIED_ROWS, len(parts.validation))))
    upload.module.eval()
    with torch.no_grad():
        expected = upload.module(*baseline.validation.take(slice(0, len(rows)))[0]).cpu().numpy()
    checked = verify_files(out_dir, delivered, config, names, to_arrays(rows, baseline.scaling), expected, upload.module.output.name)
    split, written = read_split(out_dir / SPLIT), _split_of(parts)
    if split.keys() != written.keys() or any(not np.array_equal(split[part], rows) for part, rows in written.items()):
        raise ArtifactMismatch("split.npz does not hold the rows of the run.", param=SPLIT)
    return checked


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
