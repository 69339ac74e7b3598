"""The schedule against the specification's table, and the jitter's bounds."""

import random
from datetime import timedelta
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from service.webhooks.schedule import MAX_RETRY_AFTER_S, SCHEDULE_S, next_delay_s


def test_the_schedule_is_that_of_the_specification() -> None:
    """spec/standard-webhooks.md 1.0.0: attempt 1 at once, then each so long after the one before."""
    table = {2: (5, "s"), 3: (5, "m"), 4: (30, "m"), 5: (2, "h"), 6: (5, "h"), 7: (10, "h"), 8: (14, "h"), 9: (20, "h"), 10: (24, "h")}
    unit_s = {"s": 1, "m": 60, "h": 3600}
    assert [number * unit_s[unit] for number, unit in table.values()] == list(SCHEDULE_S)
    assert list(accumulate(SCHEDULE_S))[-1] > timedelta(days=3).total_seconds()


@given(st.integers(1, len(SCHEDULE_S)), st.integers(), st.none() | st.floats(0, 1e12))
def test_delays_are_jittered_and_never_shorter_than_was_asked_for(failed: int, seed: int, retry_after_s: float | None) -> None:
    delay = next_delay_s(SCHEDULE_S, failed, retry_after_s, random.Random(seed).uniform)
    assert delay is not None
    asked = min(retry_after_s or 0.0, MAX_RETRY_AFTER_S)
    assert max(0.9 * SCHEDULE_S[failed - 1], asked) <= delay <= max(1.1 * SCHEDULE_S[failed - 1], asked)


def test_the_jitter_is_drawn_each_time() -> None:
    assert len({next_delay_s(SCHEDULE_S, 3, None) for _ in range(20)}) > 1


def test_after_the_last_attempt_there_is_none() -> None:
    assert next_delay_s(SCHEDULE_S, len(SCHEDULE_S) + 1, 5.0) is None
    assert next_delay_s((), 1, None) is None


def test_what_is_huge_is_bounded() -> None:
    assert next_delay_s((5.0,), 1, 1e12) == MAX_RETRY_AFTER_S
