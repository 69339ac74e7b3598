"""What time it is for everybody who shares a database."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Engine, func, literal

from service.jobs.tables import UtcDateTime


def utc_now() -> datetime:
    return datetime.now(UTC)


class DatabaseClock:
    """`clock` counts on SQLite only, PostgreSQL has its own: times of different machines are compared."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._is_postgresql = engine.dialect.name == "postgresql"
        self._clock = clock

    def __call__(self, offset_s: float = 0.0) -> ColumnElement[datetime]:
        if self._is_postgresql:
            return func.now(type_=UtcDateTime()) + literal(timedelta(seconds=offset_s))
        return literal(self._clock() + timedelta(seconds=offset_s), UtcDateTime())
