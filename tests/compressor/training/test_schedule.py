"""The schedules, and the defaults that follow from the number of rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.config import CompressionConfig
from compressor.training.schedule import Schedule, default_batch_size, kl_weight, learning_rate, resolve_schedule


@pytest.mark.parametrize(
    ("num_train", "schedule"),
    [
        (55_000, Schedule(256, (12, 40), 16)),
        (1_437, Schedule(64, (30, 80), 32)),
        (100, Schedule(16, (30, 80), 32)),
        (1_281_167, Schedule(256, (3, 8), 3)),
    ],
)
def test_defaults_follow_the_number_of_rows(num_train, schedule):
    assert resolve_schedule(CompressionConfig(), num_train, default_batch_size(num_train)) == schedule


def test_configured_sizes_win():
    config = CompressionConfig(batch_size=32, epochs=7, second_round_epochs=9, fine_tune_epochs=0)
    assert resolve_schedule(config, 50, 32) == Schedule(32, (7, 9), 0)
    assert resolve_schedule(CompressionConfig(epochs=10, second_round_epochs=0), 50, 32) == Schedule(32, (10,), 4)


def test_a_schedule_is_cut_in_proportion_to_what_is_left():
    schedule = Schedule(32, (10, 30), 10)
    assert schedule.cut_to(90, 5) == schedule
    assert schedule.cut_to(45, 5) == Schedule(32, (5, 15), 5)
    assert schedule.cut_to(1, 5) == Schedule(32, (1, 1), 1)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 20), st.integers(1, 10), st.floats(12, 500))
def test_a_cut_schedule_takes_no_more_than_is_left_but_for_one_epoch_of_each(first, second, fine_tune, num_points, passes):
    cut = Schedule(32, (first, second), fine_tune).cut_to(passes, num_points)
    assert sum(cut.rounds) + num_points * cut.fine_tune_epochs <= max(passes, sum(cut.rounds) + num_points)
    assert min(cut.rounds) >= 1


def test_the_kl_weight_rises_linearly_and_then_stays():
    weights = [kl_weight(step, 100, 0.3, 0.5) for step in range(100)]
    assert weights[0] == 0
    assert weights[15] == pytest.approx(0.25)
    assert set(weights[30:]) == {0.5}
    assert kl_weight(0, 100, 0.0, 0.5) == 0.5


def test_the_learning_rate_falls_linearly_to_almost_nothing():
    assert learning_rate(0, 200, 0.01) == 0.01
    assert learning_rate(100, 200, 0.01) == pytest.approx(0.005)
    assert 0 < learning_rate(199, 200, 0.01) < 1e-4
