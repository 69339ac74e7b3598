"""How long to train, and what the KL weight and the step size are at each step."""

from dataclasses import dataclass

from compressor.config import CompressionConfig

_STEPS_OF_A_BRANCH = 4300  # 20 epochs of MNIST at batch 256, where the compression of LeNet-300-100 has levelled off
_EPOCHS_AT_LEAST, _EPOCHS_AT_MOST = 10, 100
_FINE_TUNE_PART = 5  # one fifth of the epochs

LARGEST_DEFAULT_BATCH_SIZE = 256
SMALLEST_DEFAULT_BATCH_SIZE = 2  # one row alone has no batch statistics


@dataclass(frozen=True)
class Schedule:
    """Sizes of one branch, with the defaults resolved."""

    batch_size: int
    epochs: int
    fine_tune_epochs: int


def resolve_schedule(config: CompressionConfig, num_train: int, batch_size: int) -> Schedule:
    """The configured sizes, or what suits the number of training rows and of those in a step."""
    steps_per_epoch = max(1, num_train // batch_size)
    epochs = config.epochs or min(_EPOCHS_AT_MOST, max(_EPOCHS_AT_LEAST, round(_STEPS_OF_A_BRANCH / steps_per_epoch)))
    if config.fine_tune_epochs is not None:
        return Schedule(batch_size, epochs, config.fine_tune_epochs)
    return Schedule(batch_size, epochs, max(1, epochs // _FINE_TUNE_PART))


def default_batch_size(num_train: int) -> int:
    """A power of two with at least 20 batches in an epoch, between 16 and 256."""
    batch_size = LARGEST_DEFAULT_BATCH_SIZE
    while batch_size > 16 and num_train < 20 * batch_size:
        batch_size //= 2
    return batch_size


def kl_weight(step: int, num_steps: int, warmup_fraction: float, beta: float) -> float:
    """Linear from 0 to beta over the first part of the steps: at once, the KL would kill whole layers before the data speak."""
    warmup = warmup_fraction * num_steps
    return beta if step >= warmup else beta * step / warmup


def learning_rate(step: int, num_steps: int, initial: float) -> float:
    """Linear from `initial` at the first step to almost 0 at the last."""
    return initial * (1.0 - step / num_steps)
