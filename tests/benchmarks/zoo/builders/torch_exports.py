"""PyTorch's two exporters, each in two ways, over a module whose constants are not what initialisers leave behind."""

import inspect
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.zoo.builders.built import Built

NUM_ROWS = 16
_TRACED_ROWS = 2
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def images(channels: int, size: int) -> Tensor:
    return torch.randn(NUM_ROWS, channels, size, size)


def built(network: nn.Module, *inputs: Tensor) -> Built:
    """The four exports of `network`, after `make_constants_matter_`; inputs go by the names that its forward has for them."""
    make_constants_matter_(network, inputs)
    network.eval()
    with torch.no_grad():
        outputs = network(*inputs)
    if not outputs.isfinite().all() or outputs.std(0).max() < 1e-3:
        raise ValueError("the outputs do not depend on the rows, or are not finite")
    names = list(inspect.signature(network.forward).parameters)[: len(inputs)]
    traced, one = tuple(tensor[:_TRACED_ROWS] for tensor in inputs), tuple(tensor[:1] for tensor in inputs)
    batch = torch.export.Dim("batch")
    dynamo: dict[str, Any] = {"dynamo": True, "dynamic_shapes": tuple({0: batch} for _ in inputs), "external_data": False}
    legacy: dict[str, Any] = {"dynamo": False, "opset_version": 17, "dynamic_axes": {name: {0: "batch"} for name in names}}
    exports = {
        "dynamo": partial(_export, network, traced, names, dynamo),
        "dynamo-unoptimised": partial(_export, network, traced, names, dynamo | {"optimize": False}),
        "legacy": partial(_export, network, traced, names, legacy),
        "legacy-static": partial(_export, network, one, names, {"dynamo": False, "opset_version": 14}),
    }
    return Built([tensor.numpy() for tensor in inputs], exports)


def _export(network: nn.Module, inputs: tuple[Tensor, ...], names: list[str], options: dict[str, Any], path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters about their own code
        torch.onnx.export(network, inputs, path, input_names=names, verbose=False, **options)


@torch.no_grad()
def make_constants_matter_(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Statistics of the rows for batch normalisation, then everything that an initialiser sets to one number moved off it.

    Otherwise a reader that forgot a bias, the scale of a norm or a residual branch that starts at zero would pass. Matrices stay as
    they are, equal ones too.
    """
    norms = [part for part in network.modules() if isinstance(part, _NORMS)]
    scales = {id(part.weight) for part in norms if part.weight is not None}
    for parameter in network.parameters():
        if id(parameter) in scales:
            nn.init.uniform_(parameter, 0.7, 1.4)
        elif parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    with_statistics = [part for part in norms if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not with_statistics:
        return
    for part in with_statistics:
        part.momentum = 0.5
    network.train()
    for _ in range(3):
        network(*inputs)
    for part in with_statistics:
        assert part.running_mean is not None
        assert part.running_var is not None
        part.running_mean.add_(torch.randn_like(part.running_mean) * part.running_var.sqrt(), alpha=0.1)
        part.running_var.mul_(torch.empty_like(part.running_var).uniform_(0.8, 1.25))
