"""How much of a run is done and how long the rest will take: the rows that are left to train on, each at the pace measured last.

What a step takes is known for the whole network as soon as it is trained, and for what is left of it as soon as that is; until then it is
guessed from what is known. What comes after the training takes about as long as what came before it: both load files and start runtimes.
"""

import time
from collections.abc import Callable, Mapping
from typing import Literal

from compressor.protocol import OnProgress, Phase, Progress

_REPORT_EVERY_S = 0.5
_END_PART = 0.7  # of the time before the training: what the digits take, on an idle machine and on a busy one
_ALMOST_DONE = 0.99  # whoever says 1 has finished
_MEMORY_S = 30.0  # for so long a measured pace counts: networks shrink, and machines have other work to do

# Ways to train on a row: with noise and KL, under masks, or on grids; the whole network, or what a round has left of it.
Pace = Literal["fit", "fit_small", "tune", "tune_small", "quantise"]
# What a row takes, in rows of `tune`, as long as nothing better is known.
_USUAL: dict[Pace, float] = {"fit": 2.0, "fit_small": 0.9, "tune": 1.0, "tune_small": 0.45, "quantise": 0.6}
# Whose measured pace says most about one that is not known yet.
_LIKE: dict[Pace, tuple[Pace, ...]] = {
    "fit": ("tune", "fit_small", "tune_small", "quantise"),
    "fit_small": ("tune_small", "fit", "tune", "quantise"),
    "tune": ("fit", "tune_small", "fit_small", "quantise"),
    "tune_small": ("fit_small", "tune", "fit", "quantise"),
    "quantise": ("tune_small", "fit_small", "tune", "fit"),
}


def ignore(*_: object) -> None:
    """What is told where nobody listens."""


class ProgressTracker:
    """Turns rows trained on into `Progress`.

    Args:
        on_progress: called at most twice a second, and at every change of phase.
        clock: seconds that never go back.
    """

    def __init__(self, on_progress: OnProgress, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_progress = on_progress
        self._clock = clock
        self._phase: Phase = "validate"
        self._left: dict[Pace, float] = {}
        self._later: dict[Pace, float] = {}
        self._measured: dict[Pace, tuple[float, float]] = {}  # seconds and rows, the older ones counting less
        self._end_s: float | None = None  # before the first plan
        self._progress = self._base = 0.0  # now, and at the time of the current plan
        self._started = self._plan_started = self._last_advance = self._last_report = clock()

    def expect(self, pace: Pace, rows: float) -> None:
        """After whatever is planned, the run will train on these rows too, and plan that when it comes to it."""
        self._later[pace] = rows

    def plan(self, rows: Mapping[Pace, float]) -> None:
        """The run will train on so many rows from here on; where that is more than before, the rest of the way is stretched."""
        now = self._clock()
        if self._end_s is None:
            self._end_s = _END_PART * (now - self._started)
        self._base = self._progress
        self._later = {pace: later for pace, later in self._later.items() if pace not in rows}
        self._left = dict(rows)
        self._plan_started = self._last_advance = now

    def enter(self, phase: Phase) -> None:
        """The run enters a phase."""
        self._phase = phase
        self._report({})

    def advance(self, rows: float, pace: Pace) -> None:
        """So many more rows of the plan have been trained on; reported now and then."""
        now = self._clock()
        seconds, done = self._measured.get(pace, (0.0, 0.0))
        memory = 0.5 ** ((now - self._last_advance) / _MEMORY_S)
        self._measured[pace] = seconds * memory + now - self._last_advance, done * memory + rows
        self._left[pace] = max(0.0, self._left.get(pace, 0.0) - rows)
        self._last_advance = now
        if now - self._last_report >= _REPORT_EVERY_S:
            self._report({})

    def tell(self, metrics: Mapping[str, float]) -> None:
        """Something was measured; always reported."""
        self._report(metrics)

    def _eta_s(self) -> float | None:
        """Seconds; None before anything has been trained."""
        if self._end_s is None or not self._measured:
            return None
        training = sum(rows * self._seconds_per_row(pace) for part in (self._left, self._later) for pace, rows in part.items() if rows)
        since = self._clock() - self._last_advance
        return max(0.0, training - since) + self._end_s if training else max(0.0, self._end_s - since)

    def _seconds_per_row(self, pace: Pace) -> float:
        for like in (pace, *_LIKE[pace]):
            if like in self._measured:
                seconds, rows = self._measured[like]
                return seconds / rows * _USUAL[pace] / _USUAL[like]
        raise LookupError("nothing has been trained yet")

    def _report(self, metrics: Mapping[str, float]) -> None:
        self._last_report = self._clock()
        eta_s = self._eta_s()
        if eta_s is not None:
            spent = self._last_report - self._plan_started
            part = spent / (spent + eta_s) if spent + eta_s > 0 else 1.0
            self._progress = max(self._progress, min(_ALMOST_DONE, self._base + (1.0 - self._base) * part))
        self._on_progress(Progress(phase=self._phase, progress=self._progress, eta_s=eta_s, metrics=dict(metrics)))
