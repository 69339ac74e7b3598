"""The schedules, and the defaults that follow from the number of rows."""

import pytest

from compressor.config import CompressionConfig
from compressor.training.schedule import Schedule, default_batch_size, kl_weight, learning_rate, resolve_schedule


@pytest.mark.parametrize(
    ("num_train", "schedule"),
    [(55_000, Schedule(256, 20, 4)), (1_437, Schedule(64, 100, 20)), (100, Schedule(16, 100, 20)), (1_281_167, Schedule(256, 10, 2))],
)
def test_defaults_follow_the_number_of_rows(num_train, schedule):
    assert resolve_schedule(CompressionConfig(), num_train, default_batch_size(num_train)) == schedule


def test_configured_sizes_win():
    config = CompressionConfig(batch_size=32, epochs=7, fine_tune_epochs=0)
    assert resolve_schedule(config, 50, 32) == Schedule(32, 7, 0)


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
