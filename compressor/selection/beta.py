"""Which weight of the KL term to try next: a search in log space, about three times lower or higher at a time."""

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


def next_beta(branches: Sequence[Branch]) -> float | None:
    """The next weight to try; None where the search is over.

    Downwards as long as nothing is inside the budget; upwards from a first one below 1 as long as that finds smaller models.
    """
    last = branches[-1]
    if all(branch.nnz is None for branch in branches):
        lower = min(branch.beta for branch in branches) * LADDER_STEP
        return lower if lower >= _SMALLEST else None
    went_down = len(branches) > 1 and branches[1].beta < branches[0].beta
    if went_down or last.nnz is None or last.beta >= _LARGEST:
        return None
    improved = all(branch.nnz is None or branch.nnz >= last.nnz for branch in branches)
    raised = last.beta / LADDER_STEP
    return (_LARGEST if raised > 0.9 * _LARGEST else raised) if improved else None
