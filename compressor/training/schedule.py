"""How long to train, and what the KL weight and the step size are at each step."""

from dataclasses import dataclass

from compressor.config import CompressionConfig

# LeNet-300-100 at batch 256: 12 and 40 epochs, after which its compression has levelled off (tests.benchmarks.lenet).
_STEPS = (2600, 8600)
_EPOCHS_AT_LEAST, _EPOCHS_AT_MOST = (3, 8), (30, 80)
_FINE_TUNE_PART = 0.4  # of the epochs of the last round

LARGEST_DEFAULT_BATCH_SIZE = 256
SMALLEST_DEFAULT_BATCH_SIZE = 2  # one row alone has no batch statistics


@dataclass(frozen=True)
class Schedule:
    """Sizes of one branch, with the defaults resolved. `rounds` are the epochs of each round."""

    batch_size: int
    rounds: tuple[int, ...]
    fine_tune_epochs: int

    def cut_to(self, passes: float, num_points: int, full_control: bool = False) -> "Schedule":
        """A shorter one, in proportion, whose rounds and fine-tunings of `num_points` points take at most `passes` over the rows.

        At least one epoch of each remains; where even that is too much it is what is done. A full control takes the rounds once more.
        """
        needed = sum(self.rounds) * (2 if full_control else 1) + num_points * self.fine_tune_epochs
        if needed <= passes:
            return self
        part = passes / needed
        rounds = tuple(max(1, int(part * epochs)) for epochs in self.rounds)
        return Schedule(self.batch_size, rounds, min(self.fine_tune_epochs, max(1, int(part * self.fine_tune_epochs))))


def resolve_schedule(config: CompressionConfig, num_train: int, batch_size: int) -> Schedule:
    """The configured sizes, or what suits the number of training rows and of those in a step."""
    steps_per_epoch = max(1, num_train // batch_size)
    configured = (config.epochs, config.second_round_epochs)
    rounds = [
        min(most, max(least, round(steps / steps_per_epoch))) if given is None else given
        for given, steps, least, most in zip(configured, _STEPS, _EPOCHS_AT_LEAST, _EPOCHS_AT_MOST, strict=True)
    ]
    rounds = [epochs for epochs in rounds if epochs]
    fine_tune_epochs = max(1, round(_FINE_TUNE_PART * rounds[-1])) if config.fine_tune_epochs is None else config.fine_tune_epochs
    return Schedule(batch_size, tuple(rounds), fine_tune_epochs)


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
