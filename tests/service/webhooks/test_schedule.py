"""The schedule against the specification's table, the jitter's bounds, and Retry-After in both of its forms."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.webhooks.schedule import MAX_RETRY_AFTER_S, SCHEDULE_S, next_delay_s, parse_retry_after

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


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


@given(st.integers(0, 10**9))
def test_seconds_and_dates(seconds: int) -> None:
    assert parse_retry_after(str(seconds), NOW) == seconds
    assert parse_retry_after(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True), NOW) == seconds


@pytest.mark.parametrize("value", [None, "", " ", "soon", "-1", "1.5", "١", "31 Feb", "Sat, 31 Jan 2026 12:00:00"])
def test_what_says_nothing_is_nothing(value: str | None) -> None:
    assert parse_retry_after(value, NOW) is None


@given(st.text())
def test_no_text_breaks_it(value: str) -> None:
    found = parse_retry_after(value, NOW)
    assert found is None or found >= 0


def test_what_is_past_is_at_once_and_what_is_huge_is_bounded() -> None:
    assert parse_retry_after("Fri, 30 Jan 2026 12:00:00 GMT", NOW) == 0
    assert next_delay_s((5.0,), 1, parse_retry_after("9" * 400, NOW)) == MAX_RETRY_AFTER_S
