"""Where a search stands: with the tensors beside it, all that a resumed run needs."""

from dataclasses import asdict, dataclass, field
from typing import Any

from compressor.report import LogAlphaQuantiles, Training
from compressor.selection.beta import Branch
from compressor.selection.curve import Candidate


@dataclass
class Position:
    """The probe's findings, the branches behind, and the place in the present one.

    Attributes:
        beta: weight of the KL term of the present branch.
        climbed: how often the present branch has begun anew with a higher one.
        rounds, fine_tune_epochs: its epochs, which may have been cut to the time that is left.
        first_point: number of points that branches before it have put on the curve.
        round, epochs: those done of the present one; `round` is len(rounds) during the sweep.
        swept: for every cut done, the number of its point on the curve; None where it was not worth one.
        passes: over the training rows, of the whole search so far.
        chosen: number of the delivered point on the curve; -1: none yet.
        quantiles, training: of log_alpha, and of how it was trained, in the branch of the best point so far.
    """

    log_alpha_init: float | None = None
    step_size: float | None = None
    smaller_steps: int = 0
    branches: list[Branch] = field(default_factory=list)
    beta: float = 0.0
    climbed: int = 0
    rounds: list[int] = field(default_factory=list)
    fine_tune_epochs: int = 0
    first_point: int = 0
    round: int = 0
    epochs: int = 0
    swept: list[int | None] = field(default_factory=list)
    passes: float = 0.0
    finished: bool = False
    curve: list[Candidate] = field(default_factory=list)
    chosen: int = -1
    quantiles: dict[str, LogAlphaQuantiles] = field(default_factory=dict)
    training: Training | None = None

    def begin_branch(self, beta: float, rounds: list[int], fine_tune_epochs: int) -> None:
        self.beta, self.rounds, self.fine_tune_epochs = beta, rounds, fine_tune_epochs
        self.first_point, self.round, self.epochs, self.swept = len(self.curve), 0, 0, []

    def to_json(self) -> dict[str, Any]:
        models = {
            "quantiles": {name: quantiles.model_dump() for name, quantiles in self.quantiles.items()},
            "training": None if self.training is None else self.training.model_dump(),
        }
        return asdict(self) | models

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> "Position":
        objects = {
            "curve": [Candidate(**point) for point in state["curve"]],
            "branches": [Branch(**branch) for branch in state["branches"]],
            "quantiles": {name: LogAlphaQuantiles(**quantiles) for name, quantiles in state["quantiles"].items()},
            "training": None if state["training"] is None else Training(**state["training"]),
        }
        return cls(**(state | objects))
