"""The two loops: fitting the posterior by maximising the ELBO, and training the weights that are left, under masks or on a grid."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import Diverged
from compressor.graph.module import OnnxModule
from compressor.training.objective import Objective
from compressor.training.rows import Batch, Rows, num_batches, shuffled_batches
from compressor.training.schedule import kl_weight, learning_rate
from compressor.training.seeds import derive_seed
from compressor.training.steps import tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior

OnStep = Callable[[int], None]  # rows of the step just taken
OnEpoch = Callable[[int, float], int | None]  # epochs done, mean loss in nats per row -> epochs of the round from now on; None: as before


Scales = Mapping[str, float]  # by ONNX name, compressor.training.steps.tensor_scales


@dataclass(frozen=True)
class FitOptions:
    """What one branch is fitted with. `step_size` counts in scales of the tensor, `learning_rate_log_sigma2` in nats."""

    beta: float
    kl_warmup_fraction: float
    step_size: float
    learning_rate_log_sigma2: float
    batch_size: int
    epochs: int
    seed: int


def posterior_optimizer(module: OnnxModule, posterior: Posterior, scales: Scales, options: FitOptions) -> torch.optim.Adam:
    """Adam over the means, biases and scales, a group each, and log_sigma2, the last group. Its state keeps this order.

    A high rate for the means and a low one for log_sigma2: a variance that rises before the mean has shrunk leaves log_alpha
    between 0 and 3, where the KL hardly pulls at the mean any more.
    """
    log_sigma2 = {"params": list(posterior.log_sigma2.values()), "initial_lr": options.learning_rate_log_sigma2}
    return torch.optim.Adam([*_scaled_groups(module.tensors(), scales, options.step_size), log_sigma2], fused=True)


def fit_posterior(
    module: OnnxModule,
    posterior: Posterior,
    negative_elbo: NegativeElbo,
    objective: Objective,
    optimizer: torch.optim.Adam,
    rows: Rows,
    options: FitOptions,
    first_epoch: int,
    on_step: OnStep,
    on_epoch: OnEpoch,
) -> None:
    """Maximises the ELBO over the module's parameters and log_sigma2, by stochastic gradients with local reparameterisation.

    Noise and order of an epoch depend on the seed and the epoch alone, so that a run resumed at `first_epoch` with the same
    parameters and optimiser state takes the same steps.

    Raises: Diverged where the loss is no longer finite.
    """
    per_epoch = num_batches(rows, options.batch_size)
    epoch, epochs = first_epoch, options.epochs
    while epoch < epochs:
        num_steps = per_epoch * epochs
        losses = []
        for index, batch in enumerate(_epoch(module, rows, options, epoch)):
            step = epoch * per_epoch + index
            _set_rates(optimizer, step, num_steps)
            optimizer.zero_grad(set_to_none=True)
            values = posterior.values()
            mean_loss = objective.mean_loss(module(*batch.inputs, values=values, logits=True), batch)
            negative_elbo.backward(mean_loss, kl_weight(step, num_steps, options.kl_warmup_fraction, options.beta), values)
            posterior.mask_gradients_()
            optimizer.step()
            posterior.clamp_()
            losses.append(mean_loss.detach())
            on_step(len(batch))
        epoch += 1
        epochs = on_epoch(epoch, _finite_mean(losses)) or epochs


@dataclass(frozen=True)
class FineTuneOptions:
    """What the survivors of one mask are trained with; `step_size` counts in scales of the tensor."""

    step_size: float
    batch_size: int
    epochs: int
    seed: int


def fine_tune(
    module: OnnxModule,
    masks: Mapping[str, Tensor],
    objective: Objective,
    rows: Rows,
    options: FineTuneOptions,
    on_step: OnStep,
) -> None:
    """Sets the weights outside their masks to 0 and trains the others, biases and scales, without noise or prior.

    Args:
        masks: True = keep, by weight name; a tensor without a mask is trained whole. Steps count in scales of what is kept.
    Raises: Diverged where the loss is no longer finite.
    """
    weights = module.tensors()
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)
    _train_masked(module, tensor_scales(module, masks), lambda _: masks, objective, rows, options, on_step)


MASKS_EVERY = 50  # steps of gradual pruning


def gradual_training(
    module: OnnxModule,
    masks_at: Callable[[float], Mapping[str, Tensor]],
    objective: Objective,
    rows: Rows,
    options: FineTuneOptions,
    on_step: OnStep,
) -> None:
    """Trains the module in place under masks that change as it goes: `masks_at` gives them for the part of the training that is done.

    Raises: Diverged where the loss is no longer finite.
    """
    _train_masked(module, tensor_scales(module), masks_at, objective, rows, options, on_step)


def _train_masked(
    module: OnnxModule,
    scales: Scales,
    masks_at: Callable[[float], Mapping[str, Tensor]],
    objective: Objective,
    rows: Rows,
    options: FineTuneOptions,
    on_step: OnStep,
) -> None:
    weights = module.tensors()
    masks: dict[str, Tensor] = {}

    def mask(step: int, num_steps: int) -> None:
        if step % MASKS_EVERY == 0 or step == num_steps - 1:
            masks.update({name: mask.to(weights[name].dtype) for name, mask in masks_at((step + 1) / num_steps).items()})
        for name, factor in masks.items():
            weights[name].mul_(factor)

    _descend(module, weights, scales, dict, mask, objective, rows, options, on_step)


def fine_tune_rounded(
    module: OnnxModule,
    round_to: Callable[[str, Tensor], Tensor],
    objective: Objective,
    rows: Rows,
    options: FineTuneOptions,
    on_step: OnStep,
) -> None:
    """Trains the module's tensors under rounding, and leaves them rounded; weights that are 0 stay so.

    Forward, every tensor is what it is rounded to; the gradient passes through as if it were not (the straight-through estimator, Bengio et
    al. 2013, arXiv:1308.3432), and moves the number behind it.

    Args:
        round_to: of a tensor's ONNX name and values the rounded values.
    Raises: Diverged where the loss is no longer finite.
    """
    weights = module.tensors()
    kept = {name: weights[name] != 0 for name in module.weight_names}
    behind = {name: tensor.detach().clone().requires_grad_() for name, tensor in weights.items()}

    def values() -> dict[str, Tensor]:
        return {name: tensor + (round_to(name, tensor) - tensor).detach() for name, tensor in behind.items()}

    def mask(_: int, __: int) -> None:
        for name, mask in kept.items():
            behind[name].mul_(mask)

    _descend(module, behind, tensor_scales(module, kept), values, mask, objective, rows, options, on_step)
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(round_to(name, behind[name]))


def _descend(
    module: OnnxModule,
    parameters: Mapping[str, Tensor],
    scales: Scales,
    values: Callable[[], Mapping[str, Tensor]],
    after_step: Callable[[int, int], None],
    objective: Objective,
    rows: Rows,
    options: FineTuneOptions,
    on_step: OnStep,
) -> None:
    """Adam over `parameters`, of which `values` makes what takes the place of the module's; `after_step` gets a step's number and all."""
    optimizer = torch.optim.Adam(_scaled_groups(parameters, scales, options.step_size), fused=True)
    per_epoch = num_batches(rows, options.batch_size)
    num_steps = per_epoch * options.epochs
    for epoch in range(options.epochs):
        losses = []
        for index, batch in enumerate(_epoch(module, rows, options, epoch)):
            step = epoch * per_epoch + index
            _set_rates(optimizer, step, num_steps)
            optimizer.zero_grad(set_to_none=True)
            loss = objective.mean_loss(module(*batch.inputs, values=values(), logits=True), batch)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
            optimizer.step()
            with torch.no_grad():
                after_step(step, num_steps)
            losses.append(loss.detach())
            on_step(len(batch))
        _finite_mean(losses)


def _epoch(module: OnnxModule, rows: Rows, options: FitOptions | FineTuneOptions, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch, whose order and noise depend on the seed and the epoch alone."""
    module.train()
    seed = derive_seed(options.seed, epoch)
    torch.manual_seed(seed)
    yield from shuffled_batches(rows, options.batch_size, seed)


def _scaled_groups(parameters: Mapping[str, Tensor], scales: Scales, step_size: float) -> list[dict[str, object]]:
    return [{"params": [tensor], "initial_lr": step_size * scales[name]} for name, tensor in parameters.items()]


def _set_rates(optimizer: torch.optim.Adam, step: int, num_steps: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, num_steps, group["initial_lr"])


def _finite_mean(losses: list[Tensor]) -> float:
    """Mean loss of an epoch, in nats per row."""
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise Diverged(
            "The training loss is no longer a finite number.",
            param="step_size",
            suggestion="Set step_size lower than the report or the log says it was (a third of it, say), and submit again.",
        )
    return mean
