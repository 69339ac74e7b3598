"""The same two databases as the jobs have."""

from tests.service.jobs.conftest import database_url, engine, postgres_url

__all__ = ["database_url", "engine", "postgres_url"]
