"""Retry-After in both of its forms."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetching.retry_after import parse_retry_after

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@given(st.integers(0, 10**9))
def test_seconds_and_dates(seconds: int) -> None:
    assert parse_retry_after(str(seconds), NOW) == seconds
    assert parse_retry_after(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True), NOW) == seconds


@pytest.mark.parametrize("value", [None, "", " ", "soon", "-1", "1.5", "١", "31 Feb"])
def test_what_says_nothing_is_nothing(value: str | None) -> None:
    assert parse_retry_after(value, NOW) is None


@given(st.text())
def test_no_text_breaks_it(value: str) -> None:
    found = parse_retry_after(value, NOW)
    assert found is None or found >= 0


def test_a_date_without_a_zone_is_in_utc() -> None:
    assert parse_retry_after("Sat, 31 Jan 2026 12:00:07", NOW) == 7
    assert parse_retry_after("Sat, 31 Jan 2026 12:00:07 -0000", NOW) == 7


def test_what_is_past_is_at_once() -> None:
    assert parse_retry_after("Fri, 30 Jan 2026 12:00:00 GMT", NOW) == 0
    assert parse_retry_after("9" * 400, NOW) == 999_999_999_999
