"""Which weights of the KL term are tried, upwards and downwards."""

import pytest

from compressor.selection.beta import Branch, first_beta, higher_beta, next_beta


def search(first: float, nnz_of: dict[float, int]) -> list[float]:
    """The weights tried where a branch of weight b has nnz_of[b] nonzeros inside the budget, and none where it is not there."""
    branches: list[Branch] = []
    beta: float | None = first
    while beta is not None:
        branches.append(Branch(beta, next((nnz for known, nnz in nnz_of.items() if known == pytest.approx(beta, rel=0.1)), None)))
        beta = next_beta(branches)
    return [round(branch.beta, 3) for branch in branches]


def test_the_first_weight_goes_by_rows_and_weights():
    assert first_beta(55_000, 266_200) == 1.0
    assert first_beta(1_077, 37_000) == 0.3
    assert first_beta(1_281_167, 1_000_000) == 0.03


def test_where_the_first_holds_it_is_the_only_one():
    assert search(1.0, {1.0: 50}) == [1.0]
    assert search(0.03, {0.03: 900}) == [0.03]


def test_downwards_until_something_holds():
    assert search(1.0, {0.1: 400}) == [1.0, 0.316, 0.1]
    assert search(0.3, {0.03: 400}) == [0.3, 0.095, 0.03]


def test_a_branch_climbs_to_1_and_no_further():
    climbed = [0.03]
    while (higher := higher_beta(climbed[-1])) is not None:
        climbed.append(higher)
    assert climbed == pytest.approx([0.03, 0.095, 0.3, 1.0], rel=0.01)
    assert higher_beta(0.3) == 1.0
    assert higher_beta(50.0) is None


def test_it_ends_where_nothing_ever_holds():
    tried = search(1.0, {})
    assert tried == sorted(tried, reverse=True)
    assert len(tried) == 7
    assert tried[-1] == 0.001
