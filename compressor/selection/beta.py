"""Which weight of the KL term to try next: a search in log space, about three times higher or lower at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

LADDER_STEP = 10**-0.5
_SMALLEST, _LARGEST = 1e-3, 1.0  # above 1 the evidence itself is left behind; nobody is taken there who did not ask for it
_FEW_ROWS = 10_000


@dataclass(frozen=True)
class Branch:
    """What became of one weight of the KL term: the fewest nonzeros inside the budget; None where no point is inside."""

    beta: float
    nnz: int | None


def first_beta(num_rows: int, num_weights: int) -> float:
    """Where the search begins.

    The KL counts all weights and the likelihood all rows: with few rows, 1 prunes beyond what the data can repair; where rows outnumber
    weights there is little to spare, and what is small is the safe side (Gale et al. 2019, arXiv:1902.09574, find 0.01 to 0.05 there).
    """
    if num_rows > num_weights:
        return 0.03
    return 0.3 if num_rows < _FEW_ROWS else 1.0


def higher_beta(beta: float) -> float | None:
    """One step up; None at 1."""
    higher = beta / LADDER_STEP
    if beta >= _LARGEST:
        return None
    return _LARGEST if higher > 0.9 * _LARGEST else higher


def next_beta(branches: Sequence[Branch]) -> float | None:
    """The next weight to try: downwards as long as nothing is inside the budget; None where the search is over."""
    if any(branch.nnz is not None for branch in branches):
        return None
    lower = min(branch.beta for branch in branches) * LADDER_STEP
    return lower if lower >= _SMALLEST else None
