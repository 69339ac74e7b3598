"""The uploaded model and the rows, brought together: does one fit the other, how pixels are scaled, the dense metric, the budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from compressor.artifacts import runtime
from compressor.artifacts.verify import check_outputs
from compressor.config import CompressionConfig
from compressor.data.dataset import Array, Dataset, Parts
from compressor.data.scaling import SCALINGS, ImageScaling, scale_and_offset, to_tensor
from compressor.errors import (
    ArtifactMismatch,
    DeviceUnavailable,
    LabelOutOfRange,
    NotBetterThanGuessing,
    ShapeMismatch,
    UnsupportedModel,
    UnsupportedTask,
)
from compressor.graph.module import OnnxModule
from compressor.report import MetricValue
from compressor.selection.accuracy import accuracy, default_budget, guessing_accuracy, wilson_interval
from compressor.training.rows import Rows, count_correct

_PROBE_ROWS = 1000  # training rows that choose the scaling and show whether the model knows anything of these data
_PARITY_ROWS = 8  # of them, those that our interpreter and ONNX Runtime are compared on
_ANY_CLASS = 2**31  # labels are checked against the model's classes later where the graph does not declare how many there are


@dataclass(frozen=True)
class Baseline:
    """What the search starts from.

    Attributes:
        num_classes: columns of the model's output.
        scaling: how pixels become numbers; None where no input is an image.
        dense: accuracy of the uploaded model on validation.
        max_metric_drop: the budget, the client's or the default.
    """

    num_classes: int
    scaling: ImageScaling | None
    train: Rows
    validation: Rows
    dense: MetricValue
    max_metric_drop: float


def resolve_device(name: str) -> torch.device:
    """Raises: DeviceUnavailable where CUDA was asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("There is no CUDA device here.", param="device", suggestion='Use "auto" or "cpu".')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def largest_class_count(module: OnnxModule) -> int:
    """Classes that the output declares, or more than any data set has where it leaves them open.

    Raises: UnsupportedTask where the declared output is not one score per class, [N, C] with C of at least 2.
    """
    shape = module.output.shape
    if not shape or (len(shape) == 2 and shape[1] is None):
        return _ANY_CLASS
    return _check_scores(shape)


def measure_baseline(
    module: OnnxModule, proto: onnx.ModelProto, parts: Parts, config: CompressionConfig, batch_size: int, device: torch.device
) -> Baseline:
    """Refuses rows that do not fit the model and a model that knows nothing of them, chooses the scaling, measures the dense metric.

    Raises:
        ShapeMismatch: the model does not run on these rows.
        LabelOutOfRange, UnsupportedTask: what only a run shows where the graph declares no output shape.
        UnsupportedModel: ONNX Runtime does not run the model, or gives another output than our interpreter.
        NotBetterThanGuessing: the 95 % interval of the accuracy reaches down to that of always naming the most frequent class.
    """
    order = np.random.default_rng(config.seed).permutation(len(parts.train))
    probe = parts.train.take(order[:_PROBE_ROWS])
    any_scaling = SCALINGS[0] if parts.images else None
    num_classes = _count_classes(module, probe, any_scaling, device)
    _check_labels(parts, num_classes)
    _check_parity(module, proto, probe, any_scaling, device)

    def probe_correct(scaling: ImageScaling | None) -> int:
        return count_correct(module, to_rows(probe, scaling, device), batch_size)

    scaling = any_scaling
    if parts.images:
        scaling = max(SCALINGS, key=probe_correct) if config.image_scaling == "auto" else config.image_scaling
    if config.require_better_than_guessing:
        _refuse_guessing(probe_correct(scaling), probe)
    validation = to_rows(parts.validation, scaling, device)
    dense = accuracy(count_correct(module, validation, batch_size), len(validation), "validation")
    drop = default_budget(dense) if config.max_metric_drop is None else config.max_metric_drop
    return Baseline(num_classes, scaling, to_rows(parts.train, scaling, device), validation, dense, drop)


def to_rows(dataset: Dataset, scaling: ImageScaling | None, device: torch.device) -> Rows:
    """The arrays as tensors on the device; pixels stay bytes there and are scaled batch by batch."""
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in dataset.inputs)
    scales = [_scale_of(array, scaling, device) for array in dataset.inputs]
    return Rows(inputs, torch.from_numpy(dataset.labels).to(device), partial(_prepared, scales))


def to_arrays(dataset: Dataset, scaling: ImageScaling | None) -> list[npt.NDArray[Any]]:
    """A few rows as the model takes them, in numpy."""
    return [to_tensor(array, scaling).numpy() for array in dataset.inputs]


_Scale = tuple[Tensor, Tensor] | None


def _scale_of(array: Array, scaling: ImageScaling | None, device: torch.device) -> _Scale:
    if scaling is None or array.dtype != np.uint8:
        return None
    scale, offset = scale_and_offset(scaling, array.shape[1:])
    return torch.from_numpy(scale).to(device), torch.from_numpy(offset).to(device)


def _prepared(scales: Sequence[_Scale], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(
        part if scale is None else torch.addcmul(scale[1], part.float(), scale[0]) for part, scale in zip(inputs, scales, strict=True)
    )


def _check_scores(shape: Sequence[int | None]) -> int:
    if len(shape) == 2 and shape[1] is not None and shape[1] >= 2:
        return shape[1]
    raise UnsupportedTask(
        f"The output has the shape {list(shape)}; a classifier's has one score per class: [N, C] with C of at least 2.",
        param="model",
        suggestion="Export the model with its class scores as output; regression and dense prediction are not supported yet.",
    )


def _count_classes(module: OnnxModule, probe: Dataset, scaling: ImageScaling | None, device: torch.device) -> int:
    """Runs two real rows: what does not fit shows here, before any training."""
    inputs, labels = to_rows(probe, scaling, device).take(slice(0, 2))
    module.eval()
    try:
        with torch.no_grad():
            scores = module(*inputs)
    except (RuntimeError, IndexError, ValueError) as error:
        found = ", ".join(f"{spec.name}: {list(part.shape)}" for spec, part in zip(module.inputs, inputs, strict=True))
        raise ShapeMismatch(
            f"The model does not run on rows of this shape ({found}): {str(error).splitlines()[0][:200]}",
            param="dataset",
            suggestion="Give rows of the shape that the model was trained on.",
        ) from error
    classes = _check_scores(scores.shape)
    if len(scores) != len(labels):
        raise UnsupportedTask(
            f"{len(labels)} rows give {len(scores)} rows of scores; a classifier gives one for each.",
            param="model",
            suggestion="Export the model with the batch as the first dimension of inputs and output.",
        )
    return classes


def _check_labels(parts: Parts, num_classes: int) -> None:
    for name, part in {"dataset": parts.train, "validation": parts.validation, "test": parts.test}.items():
        if part.labels.max() >= num_classes:
            raise LabelOutOfRange(
                f"The label {part.labels.max()} is not one of the model's {num_classes} classes.",
                param=name,
                suggestion="Number the classes from 0 in the order of the model's output.",
            )


def _check_parity(module: OnnxModule, proto: onnx.ModelProto, probe: Dataset, scaling: ImageScaling | None, device: torch.device) -> None:
    """What we train must be what ONNX Runtime runs: an operator that we read otherwise must not show only after hours of training."""
    rows = probe.take(np.arange(min(_PARITY_ROWS, len(probe))))
    with torch.no_grad():
        ours = module(*to_rows(rows, scaling, device).take(slice(None))[0]).cpu().numpy()
    theirs = runtime.run(proto.SerializeToString(), to_arrays(rows, scaling), output=module.output.name)
    try:
        check_outputs("our interpreter", ours, theirs.astype(ours.dtype), 1e-2 if theirs.dtype == np.float16 else 1e-3)
    except ArtifactMismatch as error:
        raise UnsupportedModel(
            f"ONNX Runtime gives other outputs than our interpreter on the first rows: {error.detail}",
            param="model",
            suggestion="Report it with the model; exported by another exporter or opset it may be in order.",
        ) from error


def _refuse_guessing(num_correct: int, probe: Dataset) -> None:
    guessing = guessing_accuracy(probe.labels)
    if wilson_interval(num_correct, len(probe))[0] > guessing:
        return
    raise NotBetterThanGuessing(
        f"The uploaded model names the right class for {num_correct} of {len(probe)} training rows; always naming the most frequent "
        f"class is right for {guessing:.1%}.",
        param="dataset",
        suggestion="Check that the labels number the classes as the model's output does, that pixels are scaled and laid out as in "
        "training (image_scaling), and that the model was trained.",
    )
