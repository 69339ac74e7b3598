"""How much of a run is done and how long the rest will take, from the work planned and the time that the work so far took."""

import time
from collections.abc import Callable, Mapping

from compressor.protocol import OnProgress, Phase, Progress

_REPORT_EVERY_S = 0.5


def ignore(*_: object) -> None:
    """What is told where nobody listens."""


class ProgressTracker:
    """Turns work done into `Progress`. Work is counted in training rows passed through the dense network once.

    Args:
        on_progress: called at most twice a second, and at every change of phase.
        clock: seconds that never go back.
    """

    def __init__(self, on_progress: OnProgress, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_progress = on_progress
        self._clock = clock
        self._phase: Phase = "validate"
        self._base = 0.0  # progress at the time of the current plan
        self._planned = 0.0
        self._done = 0.0
        self._plan_started = self._last_report = clock()

    @property
    def progress(self) -> float:
        """Part of the run that is done; with a longer plan the rest of the way is stretched, so that it never falls."""
        return self._base if not self._planned else self._base + (1.0 - self._base) * min(1.0, self._done / self._planned)

    def plan(self, work: float) -> None:
        """The run needs `work` from here on."""
        self._base = self.progress
        self._planned, self._done = work, 0.0
        self._plan_started = self._clock()

    def enter(self, phase: Phase) -> None:
        """The run enters a phase."""
        self._phase = phase
        self._report({})

    def advance(self, work: float, metrics: Mapping[str, float] | None = None) -> None:
        """More of the plan is done; metrics are always reported, mere progress now and then."""
        self._done += work
        if metrics or self._clock() - self._last_report >= _REPORT_EVERY_S:
            self._report(metrics or {})

    def _report(self, metrics: Mapping[str, float]) -> None:
        self._last_report = self._clock()
        left = max(0.0, self._planned - self._done)
        eta_s = (self._last_report - self._plan_started) / self._done * left if self._done > 0 else None
        self._on_progress(Progress(phase=self._phase, progress=self.progress, eta_s=eta_s, metrics=dict(metrics)))
