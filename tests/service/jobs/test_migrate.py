"""Schema == migrations, on both databases."""

import subprocess
import sys

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from service.jobs.engine import SQLITE_PRAGMAS, create_engine
from service.jobs.idempotency.repository import IdempotencyRepository, KeyRecord
from service.jobs.job import LOCAL, Artifact, JobInput, new_job
from service.jobs.migrate import MIGRATIONS, upgrade
from service.jobs.quotas.quota import Usage
from service.jobs.quotas.repository import usage_of
from service.jobs.repository import JobRepository
from service.jobs.states import LEASED, Status
from service.jobs.tables import jobs, metadata
from service.storage.keys import input_key


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
    indexes = {index["name"]: index for index in inspector.get_indexes("jobs")}
    assert set(indexes) == {"ix_jobs_open", "ix_jobs_held", "ix_jobs_owner_id"}
    for name, statuses in {"ix_jobs_open": LEASED | {Status.QUEUED}, "ix_jobs_held": LEASED}.items():
        (where,) = (condition for option, condition in indexes[name]["dialect_options"].items() if option.endswith("_where"))
        assert {status for status in Status if f"'{status}'" in str(where)} == statuses


def test_upgrade_twice_changes_nothing(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0008"]


def downgrade(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_jobs_of_an_older_database_are_still_there(engine: Engine) -> None:
    job, repository = new_job(config={}, inputs={"model": JobInput(key="k")}), JobRepository(engine)
    repository.insert(job)
    downgrade(engine, "0001")
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0001"]
    upgrade(engine)
    assert repository.get(job.id) == job
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_rows_of_the_time_before_owners_are_local_and_weigh_what_their_files_do(engine: Engine) -> None:
    queued, repository = new_job(config={}, inputs={}), JobRepository(engine)
    inputs = {"model": JobInput(key=input_key(queued.id, "model", ".onnx"), bytes=2**33), "dataset": JobInput(ref="file:/x", bytes=9)}
    artifact = Artifact(name="a", key="k", bytes=5, sha256="00", media_type="x")
    job = queued.model_copy(update={"inputs": inputs, "artifacts": [artifact]})
    child = new_job(config={}, parent_id=job.id, inputs={"model": inputs["model"]})
    for each in (job, child):
        repository.insert(each)
    keys = IdempotencyRepository(engine)
    keys.reserve(LOCAL, "k", "a", 60)
    keys.reserve("alice", "k", "b", 60)
    downgrade(engine, "0005")
    upgrade(engine)
    assert repository.get(job.id, LOCAL) == job
    with engine.connect() as connection:
        assert usage_of(connection, LOCAL) == Usage(2, 2**33 + 5)
    assert keys.reserve(LOCAL, "k", "c", 60) == KeyRecord("a")
    assert keys.reserve("alice", "k", "c", 60) == KeyRecord("c")


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
