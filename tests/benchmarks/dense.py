"""Dense networks as benchmarks start from them: trained on MNIST, exported to ONNX."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from compressor.graph.cost import measure_cost
from compressor.training.augmentation import augment_images
from compressor.training.threads import sensible_threads

_BATCH_SIZE = 128


def lenet_300_100() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(100, 10),
    )


def lenet_5() -> nn.Module:
    """LeNet-5 as Caffe has it: 20 and 50 filters, 500 units, 430,500 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(500, 10),
    )


def lean() -> nn.Module:
    """784-16-10: hardly more units than it needs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))


def logistic_regression() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


@dataclass(frozen=True)
class Recipe:
    """How a network comes to be; `shifted`: with images moved by up to a pixel."""

    build: Callable[[], nn.Module]
    epochs: int
    shifted: bool = False


RECIPES = {
    "300-100": Recipe(lenet_300_100, 20),
    "300-100 shifted": Recipe(lenet_300_100, 40, shifted=True),
    "5": Recipe(lenet_5, 10),
    "784-16-10": Recipe(lean, 20),
    "784-10": Recipe(logistic_regression, 20),
}


def train_dense(recipe: Recipe, images: Tensor, labels: Tensor, seed: int) -> tuple[nn.Module, float]:
    """Adam with a rate that falls linearly from 1e-3 to 0; dropout against overfitting. Returns: the network, and seconds."""
    torch.manual_seed(seed)
    network = recipe.build()
    batch = torch.empty(_BATCH_SIZE, 1, 28, 28, device="meta")
    cost = measure_cost(lambda: copy.deepcopy(network).to("meta")(batch), max_bytes=2**30)
    started = time.monotonic()
    with sensible_threads(2 * cost.flops):
        _train(network, recipe, images, labels, seed)
    return network.eval(), time.monotonic() - started


def _train(network: nn.Module, recipe: Recipe, images: Tensor, labels: Tensor, seed: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)
    order = torch.Generator().manual_seed(seed)
    num_steps, step = recipe.epochs * -(-len(labels) // _BATCH_SIZE), 0
    network.train()
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(labels), generator=order).split(_BATCH_SIZE):
            x = augment_images(images[rows], ["shift"], 2) if recipe.shifted else images[rows]
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / num_steps)
            optimizer.zero_grad()
            cross_entropy(network(x), labels[rows]).backward()
            optimizer.step()
            step += 1


def export(network: nn.Module, path: Path) -> None:
    """Through PyTorch's default exporter, with a dynamic batch."""
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        network, (torch.zeros(2, 1, 28, 28),), path, dynamo=True, dynamic_shapes=({0: batch},), external_data=False, verbose=False
    )
