"""`KeyRepository`: all SQL about API keys."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, func, insert, or_, select, update

from service.jobs.clock import DatabaseClock, utc_now
from service.jobs.quotas.quota import Quotas
from service.jobs.tables import api_keys
from service.keys.key import ApiKey, Scope


class KeyRepository:
    """Synchronous; safe to use from several threads and processes."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._now = DatabaseClock(engine, clock)

    def insert(self, key: ApiKey) -> None:
        values = asdict(key)
        values |= values.pop("quotas")
        with self._engine.begin() as connection:
            connection.execute(insert(api_keys).values(values))

    def find(self, key_id: str) -> ApiKey | None:
        with self._engine.begin() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        return _to_key(row) if row else None

    def list_all(self) -> list[ApiKey]:
        """The oldest first."""
        with self._engine.begin() as connection:
            return [_to_key(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))]

    def revoke(self, key_id: str) -> ApiKey | None:
        """From now on, or since it was revoked before; None where there is no such key."""
        revoked_at = func.coalesce(api_keys.c.revoked_at, self._now())
        with self._engine.begin() as connection:
            connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=revoked_at))
        return self.find(key_id)

    def has_valid(self) -> bool:
        """Whether anybody could come in with a key."""
        valid = api_keys.c.revoked_at.is_(None), or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > self._now())
        with self._engine.begin() as connection:
            return connection.execute(select(api_keys.c.id).where(*valid).limit(1)).one_or_none() is not None


def _to_key(row: Row[Any]) -> ApiKey:
    values = row._asdict()
    for name in Quotas.__dataclass_fields__:
        del values[name]
    return ApiKey(**values | {"scope": Scope(row.scope), "quotas": Quotas.of(row)})
