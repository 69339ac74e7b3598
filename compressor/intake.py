"""The uploaded model and the rows, brought together: the scaling of the images, the dense metric, the budget."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from compressor.config import CompressionConfig
from compressor.data.dataset import Dataset, Parts
from compressor.data.scaling import SCALINGS, ImageScaling, scale_and_offset
from compressor.errors import DeviceUnavailable, NotBetterThanGuessing, UnsupportedTask
from compressor.graph.module import OnnxModule
from compressor.report import MetricValue
from compressor.selection.accuracy import accuracy, default_budget, guessing_accuracy, wilson_interval
from compressor.training.rows import Rows, count_correct

_PROBE_ROWS = 1000  # training rows that choose the scaling and show whether the model knows anything of these data


@dataclass(frozen=True)
class Baseline:
    """What the search starts from.

    Attributes:
        scaling: how pixels become numbers; None where the inputs are no images.
        dense: accuracy of the uploaded model on validation.
        max_metric_drop: the budget, the client's or the default.
    """

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


def count_classes(module: OnnxModule) -> int:
    """Classes that the chosen output scores.

    Raises: UnsupportedTask where the output is not one score per class, [N, C] with C of at least 2.
    """
    shape = module.output.shape
    if len(shape) == 2 and shape[1] is not None and shape[1] >= 2:
        return shape[1]
    raise UnsupportedTask(
        f"The output has the shape {list(shape)}; a classifier's has one score per class: [N, C] with C fixed and at least 2.",
        param="model",
        suggestion="Export the model with its class scores as output; regression and dense prediction are not supported yet.",
    )


def measure_baseline(module: OnnxModule, parts: Parts, config: CompressionConfig, device: torch.device) -> Baseline:
    """Chooses the scaling, refuses a model that knows nothing of these data, measures the dense metric on validation.

    Raises: NotBetterThanGuessing where the 95 % interval of the accuracy reaches down to that of always naming the most frequent class.
    """
    scaling = _choose_scaling(module, parts, config, device)
    if config.require_better_than_guessing:
        _refuse_guessing(module, parts, scaling, device)
    validation = to_rows(parts.validation, scaling, device)
    dense = accuracy(count_correct(module, validation), len(validation), "validation")
    drop = default_budget(dense) if config.max_metric_drop is None else config.max_metric_drop
    return Baseline(scaling, to_rows(parts.train, scaling, device), validation, dense, drop)


def to_rows(dataset: Dataset, scaling: ImageScaling | None, device: torch.device) -> Rows:
    """The arrays as tensors on the device; pixels stay bytes there and are scaled batch by batch."""
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in dataset.inputs)
    labels = torch.from_numpy(dataset.labels).to(device)
    if scaling is None:
        return Rows(inputs, labels, _as_stored)
    scale, offset = (torch.from_numpy(part).to(device) for part in scale_and_offset(scaling, dataset.inputs[0].shape[1:]))
    return Rows(inputs, labels, partial(_scaled, scale, offset))


def _as_stored(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs


def _scaled(scale: Tensor, offset: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.addcmul(offset, part.float(), scale) for part in inputs)


def _probe(parts: Parts) -> Dataset:
    return parts.train.take(np.arange(min(_PROBE_ROWS, len(parts.train))))


def _choose_scaling(module: OnnxModule, parts: Parts, config: CompressionConfig, device: torch.device) -> ImageScaling | None:
    if not parts.images:
        return None
    if config.image_scaling != "auto":
        return config.image_scaling
    probe = _probe(parts)
    return max(SCALINGS, key=lambda scaling: count_correct(module, to_rows(probe, scaling, device)))


def _refuse_guessing(module: OnnxModule, parts: Parts, scaling: ImageScaling | None, device: torch.device) -> None:
    probe = _probe(parts)
    num_correct = count_correct(module, to_rows(probe, scaling, device))
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
