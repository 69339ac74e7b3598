"""Schema == migrations, on both databases."""

import subprocess
import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from service.jobs.engine import SQLITE_PRAGMAS, create_engine
from service.jobs.job import JobInput, new_job
from service.jobs.migrate import upgrade
from service.jobs.repository import JobRepository
from service.jobs.states import LEASED, Status
from service.jobs.tables import jobs, metadata


def test_schema_equals_migrations(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_comparison_sees_a_missing_column(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN verdict"))
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert [(change[0], change[3].name) for change in found] == [("add_column", "verdict")]


def test_nullability_and_partial_index(engine: Engine) -> None:
    inspector = inspect(engine)
    assert {column["name"]: column["nullable"] for column in inspector.get_columns("jobs")} == {
        column.name: column.nullable for column in jobs.columns
    }
    (index,) = inspector.get_indexes("jobs")
    assert index["name"] == "ix_jobs_open"
    (where,) = (condition for option, condition in index["dialect_options"].items() if option.endswith("_where"))
    assert all(status in str(where) for status in LEASED | {Status.QUEUED})


def test_upgrade_twice_changes_nothing(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0007"]


def test_jobs_of_an_older_database_are_still_there(engine: Engine) -> None:
    job, repository = new_job(config={}, inputs={"model": JobInput(key="k")}), JobRepository(engine)
    repository.insert(job)
    with engine.begin() as connection:
        for name in ("parent_id", "metadata", "retry_of", "estimated_finish", "last_event_id"):
            connection.execute(text(f"ALTER TABLE jobs DROP COLUMN {name}"))
        for name in ("idempotency_keys", "events", "upload_files", "upload_objects", "uploads"):
            connection.execute(text(f"DROP TABLE {name}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    upgrade(engine)
    assert repository.get(job.id) == job


def test_several_processes_upgrade_at_once(database_url: str) -> None:
    code = "\n".join(
        [
            "import sys",
            "from service.jobs.engine import create_engine",
            "from service.jobs.migrate import upgrade",
            "upgrade(create_engine(sys.argv[1]))",
        ]
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, database_url], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    engine = create_engine(database_url)
    assert inspect(engine).has_table("jobs")
    engine.dispose()


def test_sqlite_pragmas(sqlite_engine: Engine) -> None:
    with sqlite_engine.connect() as connection:
        values = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in SQLITE_PRAGMAS}
    assert values == {"journal_mode": "wal", "busy_timeout": 30000, "synchronous": 1, "foreign_keys": 1}
