"""The report: everything that was found, summed up in plain words and in numbers."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from math import exp
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from compressor.admission import AdmittedModel
from compressor.atomic import replacing
from compressor.config import CompressionConfig
from compressor.data.dataset import Dataset, Parts
from compressor.delivery.files import MODEL, Arrays, file_sha256
from compressor.delivery.measuring import Measured
from compressor.delivery.writing import curve_points
from compressor.errors import ArtifactMismatch
from compressor.graph.write import float_tensors
from compressor.intake import Baseline
from compressor.protocol import DataReference
from compressor.redundancy import constant_weights, judge_redundancy
from compressor.report import (
    Branch,
    Budget,
    Bytes,
    DeliveredFile,
    Gate,
    Inputs,
    Layer,
    LogAlphaQuantiles,
    MetricName,
    MetricValue,
    Parameters,
    Provenance,
    Redundancy,
    Report,
    SnrQuantiles,
    Weights,
)
from compressor.search import Outcome

REPORT = "report.json"

_RATIO_SLACK = 1e-3  # fine-tuning may bring a weight or two to exactly 0, or not
_QUANTISED = 4.0  # times smaller, float32 as 8 bits
_PACKAGES = ("bayespress", "torch", "onnx", "onnxruntime", "numpy", "datasets")

# How a sentence calls a metric, and a value of it.
_WORDS: dict[MetricName, str] = {
    "accuracy": "accuracy",
    "agreement": "agreement with the uploaded model",
    "rmse": "RMSE",
    "deviation": "RMSE from the uploaded model's outputs",
}


def make_report(
    out_dir: Path,
    upload: AdmittedModel,
    data: DataReference,
    config: CompressionConfig,
    baseline: Baseline,
    parts: Parts,
    outcome: Outcome,
    measured: Measured,
    warnings: Sequence[str],
    device: torch.device,
    seconds: float,
) -> Report:
    """Everything that was found, as one object; also written to report.json."""
    log_alpha = outcome.log_alpha if outcome.delivered == "variational" else {}
    weights, parameters = count_weights(float_tensors(upload.proto), measured.arrays, log_alpha)
    budget = _budget(config, baseline, measured.validation)
    files = [_advise(file, budget, baseline) for file in measured.files]
    redundancy = judge_redundancy(
        float_tensors(upload.proto),
        measured.arrays,
        constant_weights(upload, parts.train, baseline.scaling),
        beta=outcome.curve[outcome.chosen].beta,
        num_train=len(parts.train),
        size_ratio=measured.bytes.size_ratio,
        met=budget.met,
    )
    unlabelled = _unlabelled(parts)
    report = Report(
        verdict=_verdict(weights, measured, budget, redundancy, outcome.delivered, bool(parts.carved)),
        delivered=outcome.delivered,
        warnings=[*parts.warnings, *warnings, *_warnings(budget, measured, files, unlabelled)],
        metric=measured.test.metric,
        difference=measured.test.difference,
        calibration=measured.test.calibration,
        classes=measured.test.classes,
        budget=budget,
        redundancy=redundancy,
        weights=weights,
        parameters=parameters,
        bytes=measured.bytes,
        files=files,
        upload_load=measured.upload_load,
        latency=measured.latency,
        quantisation=measured.quantisation,
        curve=list(curve_points(outcome, weights.numel)),
        branches=[
            Branch(beta=branch.beta, nnz=branch.nnz, num_points=sum(point.beta == branch.beta for point in outcome.curve))
            for branch in outcome.branches
        ],
        gates=_gates(config, weights, measured),
        inputs=Inputs(
            task=baseline.readout.task,
            unlabelled=unlabelled,
            num_train=len(parts.train),
            num_validation=len(parts.validation),
            num_test=len(parts.test),
            num_classes=baseline.readout.num_classes or None,
            carved=list(parts.carved),
            image_scaling=baseline.scaling,
        ),
        training=outcome.training,
        provenance=Provenance(
            sha256=_hash_all(out_dir, upload, data, measured.bytes.artifacts),
            config=config.model_dump(mode="json"),
            seed=config.seed,
            device=device.type,
            versions={"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
            seconds=seconds,
        ),
    )
    with replacing(out_dir / REPORT) as partial:
        partial.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if Report.model_validate_json((out_dir / REPORT).read_bytes()) != report:
        raise ArtifactMismatch("report.json does not hold the report.", param=REPORT)
    return report


def _unlabelled(parts: Parts) -> list[Literal["train", "validation", "test"]]:
    named: dict[Literal["train", "validation", "test"], Dataset] = {
        "train": parts.train,
        "validation": parts.validation,
        "test": parts.test,
    }
    return [name for name, part in named.items() if part.labels is None]


def count_weights(
    dense: Mapping[str, npt.NDArray[Any]], delivered: Arrays, log_alpha: Mapping[str, LogAlphaQuantiles]
) -> tuple[Weights, Parameters]:
    """What is left of the tensors of the uploaded model, those of two or more dimensions and all of them."""
    layers = []
    for name, array in dense.items():
        if array.ndim < 2 or not array.size:
            continue
        nnz = int(np.count_nonzero(delivered[name]))
        quantiles = log_alpha.get(name)
        layers.append(
            Layer(
                name=name,
                shape=array.shape,
                numel=array.size,
                nnz=nnz,
                sparsity=1 - nnz / array.size,
                log_alpha=quantiles,
                snr=None if quantiles is None else _to_snr(quantiles),
            )
        )
    numel, nnz = sum(layer.numel for layer in layers), sum(layer.nnz for layer in layers)
    all_numel = sum(array.size for array in dense.values())
    all_nnz = sum(int(np.count_nonzero(delivered[name])) for name in dense)
    return (
        Weights(numel=numel, nnz=nnz, compression_ratio=numel / max(1, nnz), layers=layers),
        Parameters(numel=all_numel, nnz=all_nnz, compression_ratio=all_numel / max(1, all_nnz)),
    )


def _to_snr(log_alpha: LogAlphaQuantiles) -> SnrQuantiles:
    """|mean| / sigma falls as log_alpha rises: the lower quantiles of one are the upper ones of the other."""
    low, lower, middle, upper, high = (
        exp(-value / 2) for value in (log_alpha.q95, log_alpha.q75, log_alpha.q50, log_alpha.q25, log_alpha.q05)
    )
    return SnrQuantiles(q05=low, q25=lower, q50=middle, q75=upper, q95=high)


def _budget(config: CompressionConfig, baseline: Baseline, compressed: MetricValue) -> Budget:
    wanted = config.max_metric_drop if baseline.kind.bounded else config.max_metric_drop_relative
    return Budget(
        metric=baseline.kind.name,
        direction=baseline.kind.direction,
        max_metric_drop=baseline.max_metric_drop,
        source="default" if wanted is None else "client",
        dense_validation=baseline.dense,
        compressed_validation=compressed,
        met=baseline.is_inside(compressed.value),
    )


def _gates(config: CompressionConfig, weights: Weights, measured: Measured) -> list[Gate]:
    ratio, size, latency = weights.compression_ratio, measured.bytes.artifacts[MODEL], measured.latency.delivered.median_ms
    found = []
    if config.target_ratio is not None:
        met = ratio >= config.target_ratio * (1 - _RATIO_SLACK)
        found.append(Gate(name="target_ratio", limit=config.target_ratio, value=ratio, met=met))
    if config.min_ratio is not None:
        found.append(Gate(name="min_ratio", limit=config.min_ratio, value=ratio, met=ratio >= config.min_ratio))
    if config.max_bytes is not None:
        found.append(Gate(name="max_bytes", limit=config.max_bytes, value=size, met=size <= config.max_bytes))
    if config.max_latency_ms is not None:
        found.append(Gate(name="max_latency_ms", limit=config.max_latency_ms, value=latency, met=latency <= config.max_latency_ms))
    return found


def _verdict(weights: Weights, measured: Measured, budget: Budget, redundancy: Redundancy, delivered: str, carved: bool) -> str:
    """What became of the file and of the metric, whether the budget held, and whether there was much to win."""
    bytes_, metric = measured.bytes, measured.test.metric
    word, compressed, dense = (
        _WORDS[metric.name],
        show_metric(metric.name, metric.compressed.value),
        show_metric(metric.name, metric.dense.value),
    )
    against = f" against {dense} dense" if metric.name in ("accuracy", "rmse") else ""
    sentence = f"{describe_size(weights, bytes_)}, at a test {word} of {compressed}{against}"
    if delivered == "magnitude":
        sentence += ", pruned by magnitude, which was the better of the two on validation"
    if not budget.met:
        drop = show_metric(budget.metric, abs(budget.dense_validation.value - budget.compressed_validation.value))
        allowed = show_metric(budget.metric, budget.max_metric_drop)
        sentence += f"; the {_name(budget)} budget was missed: validation lost {drop} where {allowed} was allowed"
        sentence += ", measured on rows that the dense model has probably seen, which flatters it" if carved else ""
    if redundancy.over_parameterised:
        return sentence + "."
    quantised = "is the alternative" if bytes_.size_ratio < _QUANTISED else "alone would have won nearly as much"
    return (
        f"{sentence}. This model is not over-parameterised for these data: {redundancy.evidence}; 8-bit quantisation (4 times smaller) "
        f"{quantised}."
    )


def describe_size(weights: Weights, bytes_: Bytes) -> str:
    """The beginning of a verdict."""
    shrunk = (
        f"model.onnx is {bytes_.size_ratio:.1f} times smaller than the upload ({bytes_.artifacts[MODEL]:,} of {bytes_.dense:,} bytes)"
        if bytes_.size_ratio > 1
        else f"model.onnx did not become smaller ({bytes_.artifacts[MODEL]:,} against {bytes_.dense:,} bytes)"
    )
    return f"{shrunk} and keeps 1 weight in {weights.compression_ratio:.1f}" if weights.nnz else f"{shrunk} and keeps no weight at all"


def show_metric(metric: MetricName, value: float) -> str:
    """A value as sentences have it: a share in per cent, an error in the unit of the labels."""
    return f"{value:.2%}" if metric in ("accuracy", "agreement") else f"{value:.4g}"


def _name(budget: Budget) -> str:
    return "RMSE" if budget.metric == "rmse" else budget.metric


def _advise(file: DeliveredFile, budget: Budget, baseline: Baseline) -> DeliveredFile:
    """Not to use a form that its own rounding takes out of the budget; where model.onnx is not in it, as far again as it allows."""
    reference = budget.dense_validation if budget.met else budget.compressed_validation
    if file.validation is None or baseline.kind.is_inside(file.validation.value, reference.value, budget.max_metric_drop):
        return file
    lost = show_metric(budget.metric, baseline.kind.loss(reference.value, file.validation.value))
    against = "the uploaded model" if budget.met else "model.onnx"
    advice = (
        f"Do not use this: with its rounded values {_name(budget)} on validation is {lost} worse than that of {against}, and the budget is "
        f"{show_metric(budget.metric, budget.max_metric_drop)}."
    )
    return file.model_copy(update={"advice": advice if file.advice is None else f"{advice} {file.advice}"})


def _warnings(budget: Budget, measured: Measured, files: Sequence[DeliveredFile], unlabelled: Sequence[str]) -> list[str]:
    found = [f"{file.name}: {file.advice}" for file, before in zip(files, measured.files, strict=True) if file.advice != before.advice]
    if measured.test.metric.name in ("agreement", "deviation") or budget.metric in ("agreement", "deviation"):
        true = "accuracy" if budget.metric in ("accuracy", "agreement") else "error on labels"
        found.append(
            f"No labels for {', '.join(unlabelled)}: what is measured there is agreement with the uploaded model, not {true}; where it "
            "is wrong, agreeing with it is wrong too."
        )
    low, high = budget.dense_validation.interval
    if (high - low) / 2 > budget.max_metric_drop * (1 + 1e-9) + (1e-9 if budget.direction == "maximize" else 0):
        found.append(
            f"The validation part has {budget.dense_validation.num_examples} rows, too few to resolve a change of "
            f"{show_metric(budget.metric, budget.max_metric_drop)}: the 95 % half-width of its {_name(budget)} is "
            f"{show_metric(budget.metric, (high - low) / 2)}."
        )
    if measured.bytes.artifacts[MODEL] >= measured.bytes.dense_gzip:
        found.append(
            f"gzip makes the uploaded file as small ({measured.bytes.dense_gzip:,} bytes) as model.onnx is "
            f"({measured.bytes.artifacts[MODEL]:,} bytes)."
        )
    return found


def _hash_all(out_dir: Path, upload: AdmittedModel, data: DataReference, names: Iterable[str]) -> dict[str, str]:
    inputs = {part: Path(source) for part, source in data.model_dump().items() if source and not source.startswith("builtin:")}
    files = {"model": upload.path} | inputs | {name: out_dir / name for name in names}
    return {name: file_sha256(path) for name, path in files.items()}
