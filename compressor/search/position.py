"""Where a search stands: with the tensors beside it, all that a resumed run needs."""

from dataclasses import asdict, dataclass, field
from typing import Any

from compressor.report import LogAlphaQuantiles
from compressor.selection.beta import Branch
from compressor.selection.curve import Candidate


@dataclass
class Position:
    """The probe's findings, the branches behind, and the place in the present one.

    Attributes:
        beta: weight of the KL term of the present branch.
        rounds, fine_tune_epochs: its epochs, which may have been cut to the time that is left.
        round, epochs: those done of the present one; `round` is len(rounds) during the sweep.
        swept: thresholds done.
        passes: over the training rows, of the whole search so far.
        chosen: index in `curve`; -1: none.
        log_alpha: quantiles of the chosen point's branch.
    """

    log_alpha_init: float | None = None
    step_size: float | None = None
    smaller_steps: int = 0
    branches: list[Branch] = field(default_factory=list)
    beta: float = 0.0
    rounds: list[int] = field(default_factory=list)
    fine_tune_epochs: int = 0
    round: int = 0
    epochs: int = 0
    swept: int = 0
    passes: float = 0.0
    finished: bool = False
    curve: list[Candidate] = field(default_factory=list)
    chosen: int = -1
    log_alpha: dict[str, LogAlphaQuantiles] = field(default_factory=dict)

    def begin_branch(self, beta: float, rounds: list[int], fine_tune_epochs: int) -> None:
        self.beta, self.rounds, self.fine_tune_epochs = beta, rounds, fine_tune_epochs
        self.round, self.epochs, self.swept = 0, 0, 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"log_alpha": {name: quantiles.model_dump() for name, quantiles in self.log_alpha.items()}}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> "Position":
        curve = [Candidate(**point) for point in state["curve"]]
        branches = [Branch(**branch) for branch in state["branches"]]
        log_alpha = {name: LogAlphaQuantiles(**quantiles) for name, quantiles in state["log_alpha"].items()}
        return cls(**(state | {"curve": curve, "branches": branches, "log_alpha": log_alpha}))
