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
    UniqueConstraint,
    false,
    text,
    true,
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
    Column("owner", String(64), nullable=False, server_default=text("'local'")),
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
    Column("max_running_jobs", Integer),
    Column("stored_bytes", BigInteger, nullable=False, server_default=text("0")),
    Index("ix_jobs_owner_id", "owner", "id"),
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
    Column("owner", String(64), primary_key=True, server_default=text("'local'")),
    Column("key", String(255), primary_key=True),
    Column("job_id", String(64), nullable=False),
    Column("fingerprint", String(64)),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

# A limit that is NULL is the default of the settings.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("max_queued_jobs", Integer),
    Column("max_running_jobs", Integer),
    Column("max_stored_bytes", BigInteger),
    Column("max_upload_bytes", BigInteger),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
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

# What a runner holds, by owner: their number is limited.
HELD = text("status IN ('validating', 'running', 'pausing', 'cancelling')")
Index("ix_jobs_held", jobs.c.owner, sqlite_where=HELD, postgresql_where=HELD)
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("events", JSON, nullable=False),
    Column("description", Text),
    Column("enabled", Boolean, nullable=False, server_default=true()),
    Column("disabled_reason", String(16)),
    Column("secret", String(128), nullable=False),
    Column("old_secret", String(128)),
    Column("old_secret_until", UtcDateTime),
    Column("failing_since", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
)

# No foreign key to the webhook: one that is deleted meanwhile must not keep a job from ending.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("webhook_id", String(64), nullable=False),
    Column("job_id", String(64)),
    Column("event_id", Integer),
    Column("type", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_attempt_at", UtcDateTime),
    Column("last_status", Integer),
    Column("last_error", String(32)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, index=True),
    Column("claimed_until", UtcDateTime),
    Column("fence", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("webhook_id", "job_id", "event_id"),
    Index(None, "webhook_id", "id"),
)

PENDING = text("status = 'pending'")
Index(
    "ix_webhook_deliveries_pending",
    webhook_deliveries.c.next_attempt_at,
    webhook_deliveries.c.id,
    sqlite_where=PENDING,
    postgresql_where=PENDING,
)
