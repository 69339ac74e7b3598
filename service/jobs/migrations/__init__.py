"""Alembic migrations of the jobs table; run by service.jobs.migrate."""
