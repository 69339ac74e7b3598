"""`select`: another point of a finished run's curve as a model, without rows and without training."""

from collections.abc import Sequence
from pathlib import Path

from compressor.admission import AdmittedModel, admit, to_numpy
from compressor.artifacts import points, sparse_onnx
from compressor.atomic import replacing
from compressor.config import CompressionConfig, check_choice
from compressor.delivery import (
    MODEL,
    Delivered,
    count_weights,
    deliver,
    describe_size,
    file_sha256,
    finite_outputs,
    measure_bytes,
    show_metric,
    verify_files,
    write_model,
)
from compressor.errors import ArtifactMismatch, InvalidArtifact, InvalidConfig
from compressor.graph.write import float_tensors
from compressor.progress import ProgressTracker, ignore
from compressor.protocol import CURVE, SELECTION, OnProgress
from compressor.report import CurvePoint, Selection
from compressor.search.network import Network
from compressor.selection.curve import choose, nearest
from compressor.selection.metric import KINDS


def select(
    model_path: Path | str, curve_path: Path | str, config: CompressionConfig, out_dir: Path | str, on_progress: OnProgress = ignore
) -> Selection:
    """Exports one point of the curve of an earlier run, as it was when its metric was measured.

    Args:
        model_path: the model that the run was given.
        curve_path: its artifact curve.safetensors.
        config: exactly one of `point`, `target_ratio` (the nearest point) and `max_metric_drop` (the smallest point inside) chooses; of the
            other options `architecture`, `image_size` and `output` count, which are those of the run where they are unset.
        out_dir: receives model.onnx, weights.safetensors and selection.json; made where it is absent.
        on_progress: told of the phases.
    Returns: what was exported.
    Raises:
        InvalidConfig: no such point.
        InvalidArtifact: the curve is damaged, or that of another model.
        ModelError: as `compress`.
        ArtifactMismatch: what was written is not what was read.
    """
    model_path, curve_path, out_dir = Path(model_path), Path(curve_path), Path(out_dir)
    tracker = ProgressTracker(on_progress)

    tracker.enter("validate")
    check_choice(config, is_selection=True)
    curve = points.read(curve_path)
    number = _choose(curve, config)
    if file_sha256(model_path) != curve.model_sha256:
        raise InvalidArtifact(
            "The curve is that of another model.", param=CURVE, suggestion="Give the very file that the run was given, byte for byte."
        )
    model = admit(model_path, _with_options_of(curve, config))
    point = points.read_point(curve_path, curve, number, model.module.state())
    Network(model.module).load(point.tensors)

    tracker.enter("write")
    out_dir.mkdir(parents=True, exist_ok=True)
    delivered = deliver(model, point.tensors, point.log_sigma2)
    names = write_model(out_dir, delivered, config)

    tracker.enter("verify")
    example = model.module.example or ()
    expected = finite_outputs(model.module, example) if example else None
    verify_files(out_dir, delivered, config, names, to_numpy(example), expected, model.module.output.name)
    return _write_selection(out_dir, model, delivered, names, curve_path, curve, number)


def _choose(curve: points.Curve, config: CompressionConfig) -> int:
    """The number of the point."""
    if config.point is not None:
        if config.point >= len(curve.points):
            raise InvalidConfig(
                f"The curve has no point {config.point}.", param="point", suggestion=f"Its points are 0 to {len(curve.points) - 1}."
            )
        return config.point
    kind = KINDS[curve.metric]
    if config.target_ratio is not None:
        return curve.points.index(nearest(curve.points, kind, curve.numel, config.target_ratio))
    option = "max_metric_drop" if kind.bounded else "max_metric_drop_relative"
    allowed = config.max_metric_drop if kind.bounded else config.max_metric_drop_relative
    if allowed is None:
        raise InvalidConfig(
            f"The curve shows the {curve.metric}, for which the budget is called {option}.", param=option, suggestion=f"Set {option}."
        )
    drop = allowed if kind.bounded else allowed * curve.dense_metric
    best = choose(curve.points, kind, curve.dense_metric, drop)
    if not kind.is_inside(best.metric, curve.dense_metric, drop):
        lost = show_metric(curve.metric, kind.loss(curve.dense_metric, best.metric))
        raise InvalidConfig(
            f"No point of the curve loses so little: the most accurate one loses {lost} on validation.",
            param=option,
            suggestion="Allow a larger drop, or choose by ratio or number.",
        )
    return curve.points.index(best)


def _with_options_of(curve: points.Curve, config: CompressionConfig) -> CompressionConfig:
    own = {"architecture": curve.architecture, "image_size": curve.image_size, "output": curve.output}
    return CompressionConfig.parse(own | config.model_dump(include=set(own), exclude_none=True))


def _write_selection(
    out_dir: Path,
    model: AdmittedModel,
    delivered: Delivered,
    names: Sequence[str],
    curve_path: Path,
    curve: points.Curve,
    number: int,
) -> Selection:
    left = sparse_onnx.read(out_dir / MODEL)
    weights, parameters = count_weights(float_tensors(model.proto), delivered.whole(left), {})
    bytes_, point = measure_bytes(out_dir, model, left, names), curve.points[number]
    files = {"model": model.path, "curve": curve_path, **{name: out_dir / name for name in names}}
    selection = Selection(
        verdict=f"Point {number}: {describe_size(weights, bytes_)}, at a validation {_metrics(curve, point)}.",
        number=number,
        point=point,
        metric=curve.metric,
        dense_metric=curve.dense_metric,
        weights=weights,
        parameters=parameters,
        bytes=bytes_,
        sha256={name: file_sha256(path) for name, path in files.items()},
    )
    with replacing(out_dir / SELECTION) as partial:
        partial.write_text(selection.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if Selection.model_validate_json((out_dir / SELECTION).read_bytes()) != selection:
        raise ArtifactMismatch("selection.json does not hold the selection.", param=SELECTION)
    return selection


def _metrics(curve: points.Curve, point: CurvePoint) -> str:
    value, dense = (show_metric(curve.metric, metric) for metric in (point.metric, curve.dense_metric))
    return f"{curve.metric} of {value} against {dense} dense"
