"""Progress and the time left, with a clock that the test turns."""

import pytest

from compressor.progress import _END_PART, ProgressTracker
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


def train(tracker: ProgressTracker, clock: Clock, rows: int, seconds_per_row: float, pace="fit") -> None:
    for _ in range(rows):
        clock.now += seconds_per_row
        tracker.advance(1, pace)


def test_eta_is_the_time_per_row_so_far_times_the_rows_left(clock):
    tracker, lines = tracked(clock)
    tracker.plan({"fit": 100})
    tracker.enter("fit")
    assert lines[-1].eta_s is None
    train(tracker, clock, 25, 0.5)
    tracker.tell({})
    assert lines[-1].eta_s == pytest.approx(37.5)
    assert lines[-1].progress == pytest.approx(0.25)


def test_each_kind_of_training_is_counted_at_its_own_pace_once_that_is_known(clock):
    tracker, lines = tracked(clock)
    tracker.plan({"fit": 10, "tune": 100})
    train(tracker, clock, 10, 2.0)
    tracker.tell({})
    assert lines[-1].eta_s == pytest.approx(100)  # by what is usual
    train(tracker, clock, 50, 3.0, "tune")
    tracker.tell({})
    assert lines[-1].eta_s == pytest.approx(150)


def test_a_machine_that_slows_down_is_believed_soon(clock):
    tracker, lines = tracked(clock)
    tracker.plan({"fit": 10_000})
    train(tracker, clock, 1000, 0.1)
    train(tracker, clock, 200, 1.0)
    tracker.tell({})
    assert lines[-1].eta_s == pytest.approx(8800, rel=0.2)


def test_the_end_takes_about_as_long_as_the_beginning_and_is_counted_down(clock):
    tracker, lines = tracked(clock)
    tracker.enter("validate")
    clock.now = 10
    tracker.plan({"fit": 10})
    train(tracker, clock, 10, 1.0)
    end_s = 10 * _END_PART
    tracker.enter("write")
    assert (lines[-1].eta_s, lines[-1].progress) == (pytest.approx(end_s), pytest.approx(10 / (10 + end_s)))
    clock.now += end_s - 1
    tracker.enter("verify")
    assert lines[-1].eta_s == pytest.approx(1)
    clock.now += 5
    tracker.enter("test")
    assert (lines[-1].eta_s, lines[-1].progress) == (0, 0.99)


def test_what_is_expected_counts_until_it_is_planned(clock):
    tracker, lines = tracked(clock)
    tracker.expect("quantise", 100)
    tracker.plan({"fit": 20})
    train(tracker, clock, 10, 2.0)
    tracker.tell({})
    assert lines[-1].eta_s == pytest.approx(20 + 60)
    tracker.plan({"quantise": 10})
    tracker.tell({})
    assert lines[-1].eta_s == pytest.approx(6)


def test_a_longer_plan_stretches_the_rest_so_that_progress_never_falls(clock):
    tracker, lines = tracked(clock)
    tracker.plan({"fit": 100})
    train(tracker, clock, 80, 1.0)
    tracker.tell({})
    tracker.plan({"fit": 200})
    tracker.tell({})
    train(tracker, clock, 100, 1.0)
    tracker.tell({})
    train(tracker, clock, 300, 1.0)
    tracker.tell({})
    progress = [line.progress for line in lines]
    assert progress == sorted(progress)
    assert progress[-1] == 0.99
    assert (lines[-1].eta_s, lines[-2].eta_s) == (0, 0)
    found = {round(part, 2) for part in progress}
    assert {0.8, 0.9} <= found


def test_steps_are_reported_twice_a_second_at_most_metrics_always(clock):
    tracker, lines = tracked(clock)
    tracker.plan({"fit": 1000})
    train(tracker, clock, 100, 0.02)
    assert 3 <= len(lines) <= 4
    tracker.tell({"metric": 0.5})
    assert lines[-1].metrics == {"metric": 0.5}
