"""The files' sizes, what they take to load and to run, and the metric of what lies in them, in which the training side has no word."""

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compressor.admission import AdmittedModel
from compressor.artifacts import bp, runtime, sparse_onnx
from compressor.artifacts.load_cost import measure_load
from compressor.config import WEIGHTS_SUFFIX, CompressionConfig
from compressor.data.dataset import Parts
from compressor.delivery.files import BP, DENSE, MODEL, PACKED, WEIGHTS, Arrays, Delivered
from compressor.delivery.writing import SPLIT
from compressor.graph.write import float_tensors
from compressor.intake import Baseline, to_arrays
from compressor.protocol import CURVE
from compressor.report import Bytes, DeliveredFile, Latency, LoadCost, MetricValue, Quantisation
from compressor.scoring import TestScores, score_test, score_validation
from compressor.search import Outcome

_ZSTD_LEVEL = 19
_MANY_ROWS = 64
_SECONDS_PER_LATENCY = 2.0
_PURPOSES = {
    MODEL: "For any tool that knows ONNX: the graph without its dead units, weights with enough zeros as sparse tensors, which "
    "runtimes make dense as they load them.",
    DENSE: "For tools that know nothing of sparse tensors, and for converters: the same graph with plain dense ones.",
    PACKED: "For devices that fetch a model over the network and run stock ONNX Runtime: it decodes itself while it is loaded.",
    BP: "For storing and sending: the fewest bytes, and bayespress unpack, or a reader by its documented layout, makes ONNX of them.",
    WEIGHTS: "For programs that want the matrices: CSR as in scipy and torch.",
}


@dataclass(frozen=True)
class Measured:
    """What was found out about the files.

    `arrays`: the tensors of model.onnx, read back, in the uploaded shapes. `validation`: what they give there.
    """

    arrays: Arrays
    validation: MetricValue
    test: TestScores
    latency: Latency
    bytes: Bytes
    files: list[DeliveredFile]
    upload_load: LoadCost | None
    quantisation: Quantisation | None


def measure(
    out_dir: Path,
    upload: AdmittedModel,
    config: CompressionConfig,
    outcome: Outcome,
    delivered: Delivered,
    checked: Mapping[str, tuple[str, ...]],
    parts: Parts,
    baseline: Baseline,
) -> Measured:
    """Sizes, loading, latency and test metric of the files, in stock ONNX Runtime; the one look at the test rows.

    Args:
        upload: its module holds the delivered tensors.
        checked: the forms of the model, each with the runtimes in which it was run.
    """
    output = upload.module.output.name
    control = out_dir / "control.onnx"
    sparse_onnx.write(control, upload.proto, {name: tensor.detach().cpu().numpy() for name, tensor in outcome.control_tensors.items()})
    inference = upload.inference.SerializeToString()
    quantised = delivered.quantised
    rounded = None if quantised is None else quantised.model.SerializeToString()
    test = score_test(inference, out_dir / MODEL, control, parts.test, baseline, output, rounded)
    control.unlink()

    left = sparse_onnx.read(out_dir / MODEL)
    sizes = measure_bytes(out_dir, upload, left, (*checked, WEIGHTS, CURVE, SPLIT))
    validation = baseline.evaluate(upload.module)
    rounded = [name for name in checked if name in _rounded_forms(delivered, config)]
    of_rounded = _validate([out_dir / name for name in rounded], inference, parts, baseline, output)
    sample = to_arrays(parts.validation.take(np.arange(min(_MANY_ROWS, len(parts.validation)))), baseline.scaling)
    return Measured(
        arrays=delivered.whole(left),
        validation=validation,
        test=test,
        latency=runtime.measure_latency(inference, out_dir / MODEL, sample, output=output),
        bytes=sizes,
        files=[
            _measure_file(
                out_dir / name,
                upload,
                sizes,
                checked.get(name, ()),
                sample,
                of_rounded.get(name),
                met=baseline.is_inside(of_rounded.get(name, validation).value),
            )
            for name in (*checked, WEIGHTS)
        ],
        upload_load=None if upload.path.suffix == WEIGHTS_SUFFIX else _load(upload.path),
        quantisation=_quantisation(delivered, test),
    )


def measure_bytes(out_dir: Path, upload: AdmittedModel, left: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> Bytes:
    """Sizes of the upload and of the files of these names, model.onnx among them.

    Args:
        left: the tensors of model.onnx.
    """
    dense = upload.path.read_bytes()
    artifacts = {name: (out_dir / name).stat().st_size for name in names}
    return Bytes(
        dense=len(dense),
        dense_gzip=len(gzip.compress(dense, mtime=0)),
        dense_zstd=len(pa.Codec("zstd", compression_level=_ZSTD_LEVEL).compress(dense, asbytes=True)),
        entropy_bound=sum(_entropy_bound(array) for array in left.values()),
        artifacts=artifacts,
        size_ratio=len(dense) / artifacts[MODEL],
    )


def _entropy_bound(array: npt.NDArray[Any]) -> int:
    nnz = int(np.count_nonzero(array))
    density = nnz / max(1, array.size)
    of_one = 0.0 if density in (0.0, 1.0) else -(density * np.log2(density) + (1 - density) * np.log2(1 - density))
    return int(np.ceil(array.size * of_one / 8)) + nnz * array.dtype.itemsize


def _rounded_forms(delivered: Delivered, config: CompressionConfig) -> set[str]:
    """Those whose values are not those of model.onnx."""
    of_quantised = {PACKED, BP} if delivered.quantised is not None and delivered.quantised.values != "float32" else set()
    has_halves = {PACKED: config.packed_values == "float16", DENSE: config.weight_dtype == "float16"}
    return of_quantised | {name for name, is_half in has_halves.items() if is_half}


def _validate(paths: Sequence[Path], inference: bytes, parts: Parts, baseline: Baseline, output: str) -> dict[str, MetricValue]:
    """The metric on validation of each form, by name."""
    models = [bp.unpack(path) if path.name == BP else path for path in paths]
    found = score_validation(inference, models, parts.validation, baseline, output)
    return {path.name: metric for path, metric in zip(paths, found, strict=True)}


def _measure_file(
    path: Path,
    upload: AdmittedModel,
    sizes: Bytes,
    runtimes: tuple[str, ...],
    sample: Sequence[npt.NDArray[Any]],
    validation: MetricValue | None,
    *,
    met: bool,
) -> DeliveredFile:
    size = sizes.artifacts[path.name]
    runs = path.name in (MODEL, DENSE, PACKED)
    dense, output = upload.inference.SerializeToString(), upload.module.output.name
    counts = {1} if upload.module.static_batch else {1, len(sample[0])}  # a graph with its own number of rows is run on these
    return DeliveredFile(
        name=path.name,
        bytes=size,
        size_ratio=sizes.dense / size,
        purpose=_PURPOSES[path.name],
        validation=validation,
        met=met,
        advice=None
        if size < sizes.dense_gzip
        else f"Do not use this for its size: gzip makes the upload as small ({sizes.dense_gzip:,} bytes).",
        checked_in=list(runtimes),
        load=_load(path) if runs else None,
        latency=[
            runtime.measure_latency(dense, path, sample, output=output, batch_size=count, max_seconds=_SECONDS_PER_LATENCY)
            for count in sorted(counts)
            if runs
        ],
    )


def _load(path: Path) -> LoadCost | None:
    found = measure_load(path)
    return None if found is None else LoadCost(median_ms=found.median_ms, peak_bytes=found.peak_bytes)


def _quantisation(delivered: Delivered, test: TestScores) -> Quantisation | None:
    quantised = delivered.quantised
    if quantised is None or test.quantised is None:
        return None
    return Quantisation(
        values=quantised.values,
        coarseness=quantised.coarseness,
        bits={name: grid.bits for name, grid in (quantised.grids or {}).items()},
        nnz=sum(int(np.count_nonzero(array)) for array in float_tensors(quantised.model).values() if array.ndim >= 2),
        validation=quantised.metric,
        test=test.quantised,
    )
