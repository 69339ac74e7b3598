"""The account of passes and seconds, on a clock that is set by hand."""

import pytest

from compressor.search.work import Allowance


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_limits_everything_is_left():
    assert Allowance(None, None, 0.0, 0.0).left() == float("inf")


def test_epochs_are_counted_over_all_attempts():
    allowance = Allowance(50, None, 20.0, 0.0)
    allowance.use(5)
    assert allowance.left() == 25
    allowance.use(100)
    assert allowance.left() == 0


def test_seconds_become_passes_at_the_speed_so_far():
    clock = Clock()
    allowance = Allowance(None, 60.0, 0.0, 10.0, clock)
    assert allowance.left() == float("inf")  # nothing is known of the speed yet
    clock.now += 20
    allowance.use(4)
    assert allowance.left() == pytest.approx(30 / 20 * 4)
    clock.now += 31
    assert allowance.left() == 0


def test_the_stricter_of_the_two_counts():
    clock = Clock()
    allowance = Allowance(10, 60.0, 0.0, 0.0, clock)
    clock.now += 10
    allowance.use(6)
    assert allowance.left() == 4
