"""One SQLAlchemy engine for SQLite and PostgreSQL."""

import sqlite3
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy import create_engine as create_sqlalchemy_engine
from sqlalchemy.engine import make_url

_BUSY_MS = 30_000
_RETRY_S = 0.02
SQLITE_PRAGMAS = {"busy_timeout": _BUSY_MS, "journal_mode": "WAL", "synchronous": "NORMAL", "foreign_keys": "ON"}


def create_engine(url: str) -> Engine:
    """An engine for `url`: sqlite:///PATH (on a local disk), or postgresql://... (psycopg 3)."""
    # What a statement carries, a webhook's secret among it, has no place in the text of an error, and so in a log: hide_parameters.
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_sqlalchemy_engine(parsed, hide_parameters=True)
        event.listen(engine, "connect", _set_sqlite_pragmas)
        return engine
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    # A server that has gone away must not hold a runner longer than its lease.
    connect_args = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    return create_sqlalchemy_engine(parsed, hide_parameters=True, pool_pre_ping=True, connect_args=connect_args)


def _set_sqlite_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    deadline = time.monotonic() + _BUSY_MS / 1000
    for name, value in SQLITE_PRAGMAS.items():
        while True:
            try:
                cursor.execute(f"PRAGMA {name}={value}")
                break
            except sqlite3.OperationalError:
                # For the lock under which a new database goes over to WAL, SQLite itself does not wait.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_S)
    cursor.close()
