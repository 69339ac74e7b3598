"""The other methods, each from a dense network to smaller ones with a given part of its weights."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune

from compressor.selection.magnitude import cubic_sparsity, magnitude_masks
from compressor.training.fit import MASKS_EVERY
from compressor.training.schedule import Schedule, kl_weight, learning_rate
from tests.benchmarks.peer_packages import Peer

_KL_WARMUP_FRACTION = 0.3
_LEARNING_RATE = 1e-3  # Adam's default, and that of the examples of both libraries

AfterStep = Callable[[int, int], None]  # steps done, of how many


@dataclass(frozen=True)
class Start:
    """What all begin with. `dense` has no dropout, as an export has none; a method takes a copy of it."""

    dense: nn.Module
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    schedule: Schedule
    seed: int

    @torch.no_grad()
    def error(self, network: nn.Module) -> float:
        """On the test images."""
        guesses = torch.cat([network.eval()(images).argmax(1) for images in self.test_images.split(1_000)])
        return float((guesses != self.test_labels).float().mean())


@dataclass(frozen=True)
class Point:
    """A small network: the ratio that was asked for, the one that it has, and its errors on the test images.

    `error_pruned`: before the fine-tuning; None where pruning and training are one.
    """

    ratio: float
    compression_ratio: float
    error: float
    error_pruned: float | None = None


@dataclass(frozen=True)
class Settings:
    """What a library leaves to its user: the first value of log_sigma2, and Adam's rates at the first step."""

    log_sigma2: float = -10.0  # of both libraries
    rate: float = _LEARNING_RATE
    rate_log_sigma2: float = _LEARNING_RATE

    def initial_rate(self, parameter: str) -> float:
        return self.rate_log_sigma2 if parameter.endswith("log_sigma2") else self.rate


def variational_points(peer: Peer, settings: Settings, start: Start, ratios: Sequence[float]) -> Iterator[Point]:
    """As many epochs as all rounds of ours with the library's layers; then, of each ratio, the weights of lowest log_alpha, fine-tuned."""
    network = peer.variational(copy.deepcopy(start.dense))
    for name, parameter in network.named_parameters():
        if name.endswith("log_sigma2"):
            nn.init.constant_(parameter, settings.log_sigma2)
    _train(network, start, sum(start.schedule.rounds), settings, penalty=lambda: peer.kl(network))
    weights = _weights(network)
    # |mean| / sigma is exp(-log_alpha / 2). Not the library's log_alpha, which pytorch-ard clamps.
    signal = {name: (weight / (network.get_parameter(_log_sigma2(name)) / 2).exp()).detach() for name, weight in weights.items()}
    total = sum(weight.numel() for weight in weights.values())
    for ratio in ratios:
        small = _to_plain(network, start.dense)
        masks = {small.get_parameter(name): mask for name, mask in magnitude_masks(signal, int(total / ratio)).items()}
        _zero(masks)
        error_pruned = start.error(small)
        _train(small, start, start.schedule.fine_tune_epochs, Settings(), after_step=lambda *_, masks=masks: _zero(masks))
        yield Point(ratio, _ratio(small), start.error(small), error_pruned)


def magnitude_points(start: Start, ratios: Sequence[float]) -> Iterator[Point]:
    """torch.nn.utils.prune, global and unstructured, step by step over all the epochs that others fit and fine-tune in."""
    for ratio in ratios:
        network = copy.deepcopy(start.dense)
        _train(
            network, start, sum(start.schedule.rounds) + start.schedule.fine_tune_epochs, Settings(), after_step=_pruning(network, ratio)
        )
        for layer, name in _prunable(network):
            prune.remove(layer, name)
        yield Point(ratio, _ratio(network), start.error(network))


def _pruning(network: nn.Module, ratio: float) -> AfterStep:
    layers = _prunable(network)
    total = sum(layer.weight.numel() for layer, _ in layers)
    final = 1 - int(total / ratio) / total
    gone = 0

    def after_step(done: int, num_steps: int) -> None:
        nonlocal gone
        if done % MASKS_EVERY and done != num_steps:
            return
        further = round(total * cubic_sparsity(done / num_steps, final)) - gone
        prune.global_unstructured(layers, prune.L1Unstructured, amount=further)  # counts of what is left
        gone += further

    return after_step


def _train(
    network: nn.Module,
    start: Start,
    epochs: int,
    settings: Settings,
    penalty: Callable[[], Tensor] | None = None,
    after_step: AfterStep | None = None,
) -> None:
    """Adam with rates that fall linearly to 0, on the cross-entropy and, with its weight rising to 1 / N, the penalty in nats."""
    groups = [{"params": [tensor], "initial_lr": settings.initial_rate(name)} for name, tensor in network.named_parameters()]
    optimizer = torch.optim.Adam(groups, fused=True)
    num_data, batch_size = len(start.labels), start.schedule.batch_size
    num_steps = epochs * -(-num_data // batch_size)
    torch.manual_seed(start.seed)
    network.train()
    batches = (rows for _ in range(epochs) for rows in torch.randperm(num_data).split(batch_size))
    for step, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, num_steps, group["initial_lr"])
        optimizer.zero_grad()
        loss = cross_entropy(network(start.images[rows]), start.labels[rows])
        if penalty is not None:
            loss = loss + kl_weight(step, num_steps, _KL_WARMUP_FRACTION, 1 / num_data) * penalty()
        loss.backward()
        optimizer.step()
        if after_step is not None:
            after_step(step + 1, num_steps)


def _to_plain(network: nn.Module, dense: nn.Module) -> nn.Module:
    """The means of a library's layers in ordinary ones, which are without a bias where the library's are."""
    plain, state = copy.deepcopy(dense), network.state_dict()
    for name in dict(dense.named_parameters()).keys() - state.keys():
        layer, _, parameter = name.rpartition(".")
        plain.get_submodule(layer).register_parameter(parameter, None)
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return plain


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.named_parameters() if name.endswith("weight")}


def _log_sigma2(weight: str) -> str:
    return weight.removesuffix("weight") + "log_sigma2"


def _prunable(network: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(layer, "weight") for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


@torch.no_grad()
def _zero(masks: dict[Tensor, Tensor]) -> None:
    for weight, mask in masks.items():
        weight.mul_(mask)


def _ratio(network: nn.Module) -> float:
    weights = _weights(network).values()
    return sum(weight.numel() for weight in weights) / max(1, sum(int(weight.count_nonzero()) for weight in weights))
