"""The uploaded model and the rows, brought together: does one fit the other, how pixels are scaled, the dense metric, the budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from compressor.admission import check_parity, training_cost
from compressor.config import CompressionConfig, ImageScaling, Task
from compressor.data.dataset import Array, Dataset, Parts
from compressor.data.images import channel_axis
from compressor.data.labels import Targets
from compressor.data.scaling import SCALINGS, scale_and_offset, to_tensor
from compressor.errors import (
    GraphTooLarge,
    InvalidConfig,
    LabelOutOfRange,
    NotBetterThanGuessing,
    ShapeMismatch,
    UnsupportedTask,
)
from compressor.graph.cost import Cost
from compressor.graph.module import Head, OnnxModule
from compressor.graph.trial import TRIAL_ROWS, Planning
from compressor.report import MetricValue
from compressor.selection.accuracy import accuracy, default_budget, guessing_accuracy
from compressor.selection.metric import ACCURACY, AGREEMENT, DEVIATION, RMSE, MetricKind
from compressor.selection.regression import guessing_rmse, rmse
from compressor.training.augmentation import augment_images
from compressor.training.readout import Readout, count_columns, count_values, read_head, readings_of
from compressor.training.rows import Inputs, Rows, count_correct, self_labelled, squared_errors
from compressor.training.schedule import SMALLEST_DEFAULT_BATCH_SIZE, default_batch_size

_PROBE_ROWS = 1000  # training rows that choose the scaling and show whether the model knows anything of these data
_PARITY_ROWS = 8  # of them, those that our interpreter and ONNX Runtime are compared on
_RELATIVE_DROP = 0.01
_SMALLEST_VARIANCE = 1e-12
_ANY_CLASS = 2**31  # labels are checked against the model's classes later where the graph does not declare how many there are


@dataclass(frozen=True)
class Baseline:
    """What the search starts from.

    Attributes:
        readout: how the model's output is read.
        scaling: how pixels become numbers; None where no input is an image.
        train, validation: rows whose labels are the client's, or what the uploaded model gives for them.
        batch_size: rows of a step.
        cost: of one noisy forward pass over these.
        dense: the metric of the uploaded model on validation.
        max_metric_drop: the budget, the client's or the default, in the metric's unit; of a metric that is minimised, a rise.
        kind: the metric that validation is measured by.
        labelled: whether the labels of `train` are the client's.
    """

    readout: Readout
    scaling: ImageScaling | None
    train: Rows
    validation: Rows
    batch_size: int
    cost: Cost
    dense: MetricValue
    max_metric_drop: float
    kind: MetricKind = ACCURACY
    labelled: bool = True

    def evaluate(self, module: OnnxModule) -> MetricValue:
        """The metric of the module, under its own parameters, on validation."""
        return _evaluate(module, self.readout, self.validation, self.batch_size)

    def measure(self, module: OnnxModule) -> float:
        """The value of `evaluate`, in the metric's own unit."""
        return self.evaluate(module).value

    def is_inside(self, metric: float) -> bool:
        """Whether a model of this metric loses no more than the budget."""
        return self.kind.is_inside(metric, self.dense.value, self.max_metric_drop)

    def is_better(self, metric: float, other: float) -> bool:
        return self.kind.is_better(metric, other)


def targets_of(module: OnnxModule, config: CompressionConfig) -> Targets:
    """What the labels may be, as far as the graph declares its output.

    Raises: UnsupportedTask where the declared output holds neither scores of classes, one for each, nor a regression's numbers, or not what
        `config.task` says.
    """
    readings = readings_of(module.output.shape, module.head, config.task)
    classes = _ANY_CLASS if readings.classes is None else max(readings.classes, 2) if readings.classes else 0
    return Targets(config.task, classes, readings.values, required=config.distillation_weight < 1)


def measure_baseline(
    module: OnnxModule, inference: onnx.ModelProto, parts: Parts, config: CompressionConfig, device: torch.device
) -> Baseline:
    """Refuses rows that do not fit the model and a model that knows nothing of them, chooses the scaling, measures the dense metric.

    Raises:
        ShapeMismatch: the model does not run on these rows.
        LabelOutOfRange, UnsupportedTask: what only a run shows where the graph declares no output shape.
        InvalidConfig: a budget of the other task; pixels without labels and without `image_scaling`; augmentation of rows that are no
            images.
        UnsupportedModel: ONNX Runtime does not run the model, or gives another output than our interpreter.
        GraphTooLarge: a training step takes more memory than there is, with the configured batch size or, by default, with two rows.
        NotBetterThanGuessing: the 95 % interval of the accuracy reaches down to that of always naming the most frequent class; the RMSE
            is no lower than that of always giving the labels' mean.
    """
    probe = _sample(parts.train, config.seed)
    any_scaling = SCALINGS[0] if parts.images else None
    output = _run(module, probe, any_scaling, device)
    readout = _read_out(module, output, _task_of(parts, config, output, module.head))
    _check_labels(parts, readout, output)
    _check_budget(readout.task, config)
    batch_size, cost = _batch_that_fits(module, parts.train, config)
    check_parity(module, inference, to_rows(probe, any_scaling, device).take(slice(0, _PARITY_ROWS))[0])

    def labelled_rows(dataset: Dataset, scaling: ImageScaling | None) -> Rows:
        rows = to_rows(dataset, scaling, device)
        return rows if dataset.labels is not None else self_labelled(module, readout, rows, batch_size)

    if probe.labels is None and parts.validation.labels is not None:
        probe = _sample(parts.validation, config.seed)

    def probe_metric(scaling: ImageScaling | None) -> MetricValue:
        return _evaluate(module, readout, labelled_rows(probe, scaling), batch_size)

    scaling = _choose_scaling(probe, probe_metric, readout.task, config) if parts.images else None
    if config.require_better_than_guessing:
        _refuse_guessing(probe_metric(scaling), labelled_rows(probe, scaling), readout.task, is_labelled=probe.labels is not None)
    train, validation = labelled_rows(parts.train, scaling), labelled_rows(parts.validation, scaling)
    dense = _evaluate(module, readout, validation, batch_size)
    kind = metric_kind(readout.task, is_labelled=parts.validation.labels is not None)
    drop = _max_drop(kind, dense, validation, config)
    if readout.task == "regression":
        noise = dense.value if kind is RMSE else drop if probe.labels is None else probe_metric(scaling).value
        readout = replace(readout, variance=max(noise**2, _SMALLEST_VARIANCE))
    train = replace(train, augment=_augmentation(parts.train, config))
    return Baseline(readout, scaling, train, validation, batch_size, cost, dense, drop, kind, labelled=parts.train.labels is not None)


def to_rows(dataset: Dataset, scaling: ImageScaling | None, device: torch.device) -> Rows:
    """The arrays as tensors on the device; pixels stay bytes there and are scaled batch by batch. Rows without labels get zeros."""
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in dataset.inputs)
    scales = [_scale_of(array, scaling, device) for array in dataset.inputs]
    labels = np.zeros(len(dataset), np.int64) if dataset.labels is None else dataset.labels
    return Rows(inputs, torch.from_numpy(labels).to(device), partial(_prepared, scales))


def to_arrays(dataset: Dataset, scaling: ImageScaling | None) -> list[npt.NDArray[Any]]:
    """A few rows as the model takes them, in numpy."""
    return [to_tensor(array, scaling).numpy() for array in dataset.inputs]


def _augmentation(train: Dataset, config: CompressionConfig) -> Callable[[Inputs], Inputs] | None:
    """Raises: InvalidConfig where it is wanted and no input is an image of rows and columns."""
    if not config.augmentation:
        return None
    axes = [_height_axis(array) for array in train.inputs]
    if not any(axes):
        raise InvalidConfig(
            "No input of this model takes images with rows and columns, so there is nothing to shift, flip or crop.",
            param="augmentation",
            suggestion="Leave it out.",
        )

    def augment(inputs: Inputs) -> Inputs:
        return tuple(augment_images(part, config.augmentation, axis) if axis else part for part, axis in zip(inputs, axes, strict=True))

    return augment


def _height_axis(array: Array) -> int | None:
    """Of a batch of images, [N, H, W], [N, C, H, W] or [N, H, W, C]; None for other rows."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        return None
    return 2 if array.ndim == 4 and channel_axis(array.shape[1:]) == 0 else 1


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


def _sample(dataset: Dataset, seed: int) -> Dataset:
    return dataset.take(np.random.default_rng(seed).permutation(len(dataset))[:_PROBE_ROWS])


def _run(module: OnnxModule, probe: Dataset, scaling: ImageScaling | None, device: torch.device) -> Tensor:
    """The output for a few real rows: what does not fit shows here, before any training."""
    inputs, labels = to_rows(probe, scaling, device).take(slice(0, _PARITY_ROWS))
    module.eval()
    try:
        # Where sizes were open to the last, nothing has bounded the graph before these rows.
        Planning().check(module, inputs, times=-(-_PARITY_ROWS // TRIAL_ROWS))
        with torch.no_grad():
            output: Tensor = module(*inputs)
    except (RuntimeError, IndexError, ValueError) as error:
        found = ", ".join(f"{spec.name}: {list(part.shape)}" for spec, part in zip(module.inputs, inputs, strict=True))
        raise ShapeMismatch(
            f"The model does not run on rows of this shape ({found}): {str(error).splitlines()[0][:200]}",
            param="dataset",
            suggestion="Give rows of the shape that the model was trained on.",
        ) from error
    if output.dim() == 0 or len(output) != len(labels):
        raise UnsupportedTask(
            f"{len(labels)} rows give an output of shape {list(output.shape)}; it must have one row for each.",
            param="model",
            suggestion="Export the model with the batch as the first dimension of inputs and output.",
        )
    return output


def _task_of(parts: Parts, config: CompressionConfig, output: Tensor, head: Head) -> Task:
    """What the labels say; where there are none, the configuration; an output of several columns or a sigmoid's is a classifier's."""
    labels = next((part.labels for part in (parts.train, parts.validation, parts.test) if part.labels is not None), None)
    if labels is not None:
        return "regression" if labels.dtype.kind == "f" else "classification"
    if config.task != "auto":
        return config.task
    return "classification" if head == "sigmoid" or (output.dim() == 2 and output.shape[1] > 1) else "regression"


def _read_out(module: OnnxModule, output: Tensor, task: Task) -> Readout:
    if task == "regression":
        count_values(output.shape, module.head)
        return Readout(module.head, 0, variance=1.0)
    single = count_columns(output.shape, module.head) == 1
    return Readout(read_head(module.head, output), 2 if single else output.shape[1], single)


def metric_kind(task: Task, *, is_labelled: bool) -> MetricKind:
    """What a part is measured by."""
    if task == "classification":
        return ACCURACY if is_labelled else AGREEMENT
    return RMSE if is_labelled else DEVIATION


def _evaluate(module: OnnxModule, readout: Readout, rows: Rows, batch_size: int) -> MetricValue:
    if readout.task == "regression":
        return rmse(squared_errors(module, readout, rows, batch_size).numpy(), "validation")
    return accuracy(count_correct(module, readout, rows, batch_size), len(rows), "validation")


def _max_drop(kind: MetricKind, dense: MetricValue, validation: Rows, config: CompressionConfig) -> float:
    """In the metric's unit. The uploaded model does not deviate from itself: there the spread of its outputs is the measure."""
    if kind.bounded:
        return default_budget(dense) if config.max_metric_drop is None else config.max_metric_drop
    part = _RELATIVE_DROP if config.max_metric_drop_relative is None else config.max_metric_drop_relative
    return part * (dense.value if kind is RMSE else guessing_rmse(validation.labels.cpu().numpy()))


def _check_budget(task: Task, config: CompressionConfig) -> None:
    wrong, right = "max_metric_drop", "max_metric_drop_relative"
    if task == "classification":
        wrong, right = right, wrong
    if getattr(config, wrong) is not None:
        raise InvalidConfig(f"{wrong} is no budget of a {task}.", param=wrong, suggestion=f"Set {right}, or leave both out.")


def _choose_scaling(
    probe: Dataset, probe_metric: Callable[[ImageScaling], MetricValue], task: Task, config: CompressionConfig
) -> ImageScaling:
    if config.image_scaling != "auto":
        return config.image_scaling
    if probe.labels is None:
        raise InvalidConfig(
            "Pixels without labels: nothing shows how they were scaled in training.",
            param="image_scaling",
            suggestion='Set it to "unit", "symmetric" or "imagenet", or give labels for dataset or validation.',
        )
    found = {scaling: probe_metric(scaling).value for scaling in SCALINGS}
    return max(found, key=found.__getitem__) if task == "classification" else min(found, key=found.__getitem__)


def _batch_that_fits(module: OnnxModule, train: Dataset, config: CompressionConfig) -> tuple[int, Cost]:
    """As many rows as the configuration has; where it leaves that open, half of the default until they fit into memory."""

    def cost(rows: int) -> Cost:
        return training_cost(module, [torch.from_numpy(array[:1]).expand(rows, *array.shape[1:]) for array in train.inputs])

    if config.batch_size is not None:
        return config.batch_size, cost(config.batch_size)
    rows = default_batch_size(len(train))
    while rows > SMALLEST_DEFAULT_BATCH_SIZE:
        try:
            return rows, cost(rows)
        except GraphTooLarge:
            rows //= 2
    return rows, cost(rows)


def _check_labels(parts: Parts, readout: Readout, output: Tensor) -> None:
    """What could not be told while the graph declared no output shape."""
    for name, part in {"dataset": parts.train, "validation": parts.validation, "test": parts.test}.items():
        if part.labels is None:
            continue
        if readout.task == "regression" and part.labels.shape[1] != output[0].numel():
            raise UnsupportedTask(
                f"The labels give {part.labels.shape[1]} numbers for each row and the model's output {output[0].numel()}; in a regression "
                "both are alike.",
                param=name,
                suggestion="Give labels as wide as the output, or the classes of a classifier as integers 0, 1, 2, ...",
            )
        if readout.task == "classification" and part.labels.max() >= readout.num_classes:
            raise LabelOutOfRange(
                f"The label {part.labels.max()} is not one of the model's {readout.num_classes} classes.",
                param=name,
                suggestion="Number the classes from 0 in the order of the model's output.",
            )


def _refuse_guessing(metric: MetricValue, probe: Rows, task: Task, *, is_labelled: bool) -> None:
    labels = probe.labels.cpu().numpy()
    if not is_labelled:
        if bool((labels != labels[:1]).any()):
            return
        said = f"The uploaded model gives the same for all of {len(probe)} training rows."
    elif task == "regression":
        guessing = guessing_rmse(labels)
        if metric.value < guessing:
            return
        said = (
            f"The uploaded model has an RMSE of {metric.value:.4g} on {len(probe)} training rows; always giving the labels' mean has "
            f"{guessing:.4g}."
        )
    else:
        guessing = guessing_accuracy(labels)
        if metric.interval[0] > guessing:
            return
        said = (
            f"The uploaded model names the right class for {round(metric.value * len(probe))} of {len(probe)} training rows; always naming "
            f"the most frequent class is right for {guessing:.1%}."
        )
    raise NotBetterThanGuessing(
        said,
        param="dataset",
        suggestion="Check that the labels are numbered or scaled as the model's output is, that pixels are scaled and laid out as in "
        "training (image_scaling), and that the model was trained.",
    )
