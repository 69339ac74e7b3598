"""The tables. Changing one needs a migration: a test compares the two."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes on every database: SQLite has none, so they lie there as naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("parent_id", String(64)),
    Column("retry_of", String(64)),
    Column("metadata", JSON(none_as_null=True)),
    Column("status", String(32), nullable=False),
    Column("phase", String(32)),
    Column("progress", Float, nullable=False, server_default=text("0")),
    Column("eta_s", Float),
    Column("estimated_finish", UtcDateTime),
    Column("metrics", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("verdict", Text),
    Column("config", JSON, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("artifacts", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    Column("fence", Integer, nullable=False, server_default=text("0")),
    Column("lease_until", UtcDateTime),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("home", String(64)),
    Column("process", String(255)),
    Column("log_tail", Text, nullable=False, server_default=text("''")),
    Column("last_event_id", Integer, nullable=False, server_default=text("0")),
)

# `id` counts the events of one job; what has been counted stands in `jobs.last_event_id`.
events = Table(
    "events",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("level", String(16), nullable=False),
    Column("type", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("job_id", String(64), nullable=False),
    Column("fingerprint", String(64)),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

# Models and datasets that were uploaded by themselves, their parts, and the bytes of these, which are there once whoever sent them.
uploads = Table(
    "uploads",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("serial", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime, nullable=False, index=True),
)

upload_objects = Table(
    "upload_objects",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("key", String(255), nullable=False, unique=True),
    Column("bytes", BigInteger, nullable=False),
)

upload_files = Table(
    "upload_files",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("upload_id", String(64), primary_key=True),
    Column("part", String(32), primary_key=True),
    Column("sha256", String(64), ForeignKey(upload_objects.c.sha256), nullable=False, index=True),
    Column("filename", Text),
    ForeignKeyConstraint(["owner", "upload_id"], ["uploads.owner", "uploads.id"]),
)

# What is not finished, in the order of claiming: a claim reads no row of the past. The text is the same in the index and in the
# query, since SQLite takes a partial index only where it finds the condition word for word.
OPEN = text("status IN ('queued', 'validating', 'running', 'pausing', 'cancelling')")
Index("ix_jobs_open", jobs.c.id, sqlite_where=OPEN, postgresql_where=OPEN)
