"""What all parts of a search work with, and the account of what they have used."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from compressor.admission import AdmittedModel
from compressor.config import CompressionConfig
from compressor.intake import Baseline
from compressor.progress import ProgressTracker
from compressor.training.fit import FineTuneOptions
from compressor.training.objective import Objective
from compressor.training.schedule import Schedule
from compressor.training.seeds import derive_seed


@dataclass(frozen=True)
class Setting:
    """The uploaded model, the rows, and how both are used; the same for the whole search."""

    model: AdmittedModel
    baseline: Baseline
    config: CompressionConfig
    schedule: Schedule
    objective: Objective
    tracker: ProgressTracker

    @property
    def num_rows(self) -> int:
        return len(self.baseline.train)

    def fine_tune_options(self, epochs: int, step_size: float) -> FineTuneOptions:
        """The same batches for every point and for the control."""
        return FineTuneOptions(step_size, self.schedule.batch_size, epochs, derive_seed(self.config.seed, "fine_tune"))


class Allowance:
    """How many passes over the training rows are left, by `max_epochs` and by the time that passes have taken so far.

    Args:
        max_epochs, max_seconds: of the whole run; None: no limit.
        passes, seconds: used before, by the attempts that this one goes on from.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        max_epochs: int | None,
        max_seconds: float | None,
        passes: float,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_epochs = max_epochs
        self._max_seconds = max_seconds
        self._clock = clock
        self._started = clock()
        self._seconds_before = seconds
        self._passes_here = 0.0
        self.passes = passes

    def use(self, passes: float) -> None:
        self.passes += passes
        self._passes_here += passes

    def left(self) -> float:
        """Passes; infinite where nothing limits them, or no pass has been timed yet."""
        left = float("inf")
        if self._max_epochs is not None:
            left = self._max_epochs - self.passes
        if self._max_seconds is not None:
            seconds = self._clock() - self._started
            seconds_left = self._max_seconds - self._seconds_before - seconds
            if seconds_left <= 0:
                return 0.0
            if self._passes_here > 0:
                left = min(left, seconds_left / seconds * self._passes_here)
        return max(0.0, left)
