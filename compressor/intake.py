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
from compressor.config import CompressionConfig
from compressor.data.dataset import Array, Dataset, Parts
from compressor.data.images import channel_axis
from compressor.data.scaling import SCALINGS, ImageScaling, scale_and_offset, to_tensor
from compressor.errors import (
    GraphTooLarge,
    InvalidConfig,
    LabelOutOfRange,
    NotBetterThanGuessing,
    ShapeMismatch,
    UnsupportedTask,
)
from compressor.graph.cost import Cost
from compressor.graph.module import OnnxModule
from compressor.graph.trial import TRIAL_ROWS, Planning
from compressor.report import MetricValue
from compressor.selection.accuracy import accuracy, default_budget, guessing_accuracy, wilson_interval
from compressor.training.augmentation import augment_images
from compressor.training.readout import Readout, count_columns, read_head
from compressor.training.rows import Inputs, Rows, count_correct
from compressor.training.schedule import SMALLEST_DEFAULT_BATCH_SIZE, default_batch_size

_PROBE_ROWS = 1000  # training rows that choose the scaling and show whether the model knows anything of these data
_PARITY_ROWS = 8  # of them, those that our interpreter and ONNX Runtime are compared on
_ANY_CLASS = 2**31  # labels are checked against the model's classes later where the graph does not declare how many there are


@dataclass(frozen=True)
class Baseline:
    """What the search starts from.

    Attributes:
        readout: how the model's output is read as classes.
        scaling: how pixels become numbers; None where no input is an image.
        batch_size: rows of a step.
        cost: of one noisy forward pass over these.
        dense: accuracy of the uploaded model on validation.
        max_metric_drop: the budget, the client's or the default.
    """

    readout: Readout
    scaling: ImageScaling | None
    train: Rows
    validation: Rows
    batch_size: int
    cost: Cost
    dense: MetricValue
    max_metric_drop: float


def largest_class_count(module: OnnxModule) -> int:
    """Classes that the output declares, or more than any data set has where it leaves them open.

    Raises: UnsupportedTask where the declared output is neither one score per class nor the probability of class 1.
    """
    shape = module.output.shape
    columns = count_columns(shape, module.head) if shape else None
    return _ANY_CLASS if columns is None else max(columns, 2)


def measure_baseline(
    module: OnnxModule, inference: onnx.ModelProto, parts: Parts, config: CompressionConfig, device: torch.device
) -> Baseline:
    """Refuses rows that do not fit the model and a model that knows nothing of them, chooses the scaling, measures the dense metric.

    Raises:
        ShapeMismatch: the model does not run on these rows.
        LabelOutOfRange, UnsupportedTask: what only a run shows where the graph declares no output shape.
        UnsupportedModel: ONNX Runtime does not run the model, or gives another output than our interpreter.
        GraphTooLarge: a training step takes more memory than there is, with the configured batch size or, by default, with two rows.
        InvalidConfig: augmentation of rows that are no images.
        NotBetterThanGuessing: the 95 % interval of the accuracy reaches down to that of always naming the most frequent class.
    """
    order = np.random.default_rng(config.seed).permutation(len(parts.train))
    probe = parts.train.take(order[:_PROBE_ROWS])
    any_scaling = SCALINGS[0] if parts.images else None
    readout = _read_out(module, probe, any_scaling, device)
    _check_labels(parts, readout.num_classes)
    batch_size, cost = _batch_that_fits(module, parts.train, config)
    check_parity(module, inference, to_rows(probe, any_scaling, device).take(slice(0, _PARITY_ROWS))[0])

    def probe_correct(scaling: ImageScaling | None) -> int:
        return count_correct(module, readout, to_rows(probe, scaling, device), batch_size)

    scaling = any_scaling
    if parts.images:
        scaling = max(SCALINGS, key=probe_correct) if config.image_scaling == "auto" else config.image_scaling
    if config.require_better_than_guessing:
        _refuse_guessing(probe_correct(scaling), probe)
    validation = to_rows(parts.validation, scaling, device)
    dense = accuracy(count_correct(module, readout, validation, batch_size), len(validation), "validation")
    drop = default_budget(dense) if config.max_metric_drop is None else config.max_metric_drop
    train = replace(to_rows(parts.train, scaling, device), augment=_augmentation(parts.train, config))
    return Baseline(readout, scaling, train, validation, batch_size, cost, dense, drop)


def to_rows(dataset: Dataset, scaling: ImageScaling | None, device: torch.device) -> Rows:
    """The arrays as tensors on the device; pixels stay bytes there and are scaled batch by batch."""
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in dataset.inputs)
    scales = [_scale_of(array, scaling, device) for array in dataset.inputs]
    return Rows(inputs, torch.from_numpy(dataset.labels).to(device), partial(_prepared, scales))


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


def _read_out(module: OnnxModule, probe: Dataset, scaling: ImageScaling | None, device: torch.device) -> Readout:
    """Runs real rows: what does not fit shows here, before any training."""
    inputs, labels = to_rows(probe, scaling, device).take(slice(0, _PARITY_ROWS))
    module.eval()
    try:
        # Where sizes were open to the last, nothing has bounded the graph before these rows.
        Planning().check(module, inputs, times=-(-_PARITY_ROWS // TRIAL_ROWS))
        with torch.no_grad():
            output = module(*inputs)
    except (RuntimeError, IndexError, ValueError) as error:
        found = ", ".join(f"{spec.name}: {list(part.shape)}" for spec, part in zip(module.inputs, inputs, strict=True))
        raise ShapeMismatch(
            f"The model does not run on rows of this shape ({found}): {str(error).splitlines()[0][:200]}",
            param="dataset",
            suggestion="Give rows of the shape that the model was trained on.",
        ) from error
    columns = count_columns(output.shape, module.head)
    if len(output) != len(labels):
        raise UnsupportedTask(
            f"{len(labels)} rows give {len(output)} rows of scores; a classifier gives one for each.",
            param="model",
            suggestion="Export the model with the batch as the first dimension of inputs and output.",
        )
    single = columns == 1
    return Readout(read_head(module.head, output), 2 if single else output.shape[1], single)


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


def _check_labels(parts: Parts, num_classes: int) -> None:
    for name, part in {"dataset": parts.train, "validation": parts.validation, "test": parts.test}.items():
        if part.labels.max() >= num_classes:
            raise LabelOutOfRange(
                f"The label {part.labels.max()} is not one of the model's {num_classes} classes.",
                param=name,
                suggestion="Number the classes from 0 in the order of the model's output.",
            )


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
