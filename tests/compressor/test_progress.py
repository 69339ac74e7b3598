"""Progress and the time left, with a clock that the test turns."""

import pytest

from compressor.progress import ProgressTracker
from compressor.protocol import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tracked(clock: Clock) -> tuple[ProgressTracker, list[Progress]]:
    lines: list[Progress] = []
    return ProgressTracker(lines.append, clock), lines


def test_eta_is_the_time_per_work_so_far_times_the_work_left(clock):
    tracker, lines = tracked(clock)
    tracker.plan(100)
    tracker.enter("fit")
    assert lines[-1].eta_s is None
    clock.now = 10
    tracker.advance(25)
    assert lines[-1].progress == 0.25
    assert lines[-1].eta_s == pytest.approx(30)


def test_a_longer_plan_stretches_the_rest_so_that_progress_never_falls(clock):
    tracker, lines = tracked(clock)
    tracker.plan(100)
    tracker.advance(80, {"loss": 1.0})
    tracker.plan(200)
    tracker.advance(100, {"loss": 1.0})
    assert [line.progress for line in lines] == pytest.approx([0.8, 0.9])
    tracker.advance(1000, {"loss": 1.0})
    assert lines[-1].progress == 1.0
    assert lines[-1].eta_s == 0


def test_steps_are_reported_twice_a_second_at_most_metrics_always(clock):
    tracker, lines = tracked(clock)
    tracker.plan(1000)
    for _ in range(100):
        clock.now += 0.02
        tracker.advance(1)
    assert 3 <= len(lines) <= 4
    tracker.advance(0, {"metric": 0.5})
    assert lines[-1].metrics == {"metric": 0.5}
