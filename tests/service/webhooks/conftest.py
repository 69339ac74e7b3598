"""Webhooks on both databases, and a receiver on loopback."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.service.jobs.conftest import database_url, engine, postgres_url, sqlite_engine  # noqa: F401  fixtures
from tests.service.webhooks.receiver import Receiver, receiving
from tests.service.webhooks.scene import Scene


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def scene(engine: Engine) -> Scene:  # noqa: F811
    """On both databases, with the real clock."""
    return Scene(engine)


@pytest.fixture
def timed(sqlite_engine: Engine) -> Scene:  # noqa: F811
    """On SQLite, where our clock counts."""
    return Scene(sqlite_engine)
