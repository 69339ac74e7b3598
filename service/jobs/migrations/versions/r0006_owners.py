"""API keys, and the owners of jobs and idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_KEYS, _PRIMARY = "idempotency_keys", "pk_idempotency_keys"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("max_queued_jobs", sa.Integer()),
        sa.Column("max_running_jobs", sa.Integer()),
        sa.Column("max_stored_bytes", sa.BigInteger()),
        sa.Column("max_upload_bytes", sa.BigInteger()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.add_column("jobs", _owner())
    op.add_column("jobs", sa.Column("max_running_jobs", sa.Integer()))
    op.add_column("jobs", sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.create_index("ix_jobs_owner_id", "jobs", ["owner", "id"])
    is_held = sa.text("status IN ('validating', 'running', 'pausing', 'cancelling')")
    op.create_index("ix_jobs_held", "jobs", ["owner"], sqlite_where=is_held, postgresql_where=is_held)
    _count_bytes()
    with op.batch_alter_table(_KEYS) as keys:
        keys.add_column(_owner())
        keys.drop_constraint(op.f(_PRIMARY), type_="primary")
        keys.create_primary_key(op.f(_PRIMARY), ["owner", "key"])


def downgrade() -> None:
    # Whoever had the same key as another owner has it no longer.
    op.execute(f"DELETE FROM {_KEYS} WHERE owner <> 'local'")  # noqa: S608  a name of ours
    with op.batch_alter_table(_KEYS) as keys:
        keys.drop_constraint(op.f(_PRIMARY), type_="primary")
        keys.create_primary_key(op.f(_PRIMARY), ["key"])
        keys.drop_column("owner")
    for name in ("ix_jobs_held", "ix_jobs_owner_id"):
        op.drop_index(name, "jobs")
    for name in ("stored_bytes", "max_running_jobs", "owner"):
        op.drop_column("jobs", name)
    op.drop_table("api_keys")


def _owner() -> sa.Column[str]:
    return sa.Column("owner", sa.String(64), nullable=False, server_default=sa.text("'local'"))


def _count_bytes() -> None:
    """What the files of the jobs weigh that are already there."""
    jobs = sa.table(
        "jobs",
        sa.column("id", sa.String()),
        sa.column("inputs", sa.JSON()),
        sa.column("artifacts", sa.JSON()),
        sa.column("stored_bytes", sa.BigInteger()),
    )
    connection = op.get_bind()
    for job_id, inputs, artifacts in connection.execute(sa.select(jobs.c.id, jobs.c.inputs, jobs.c.artifacts)).all():
        own = [given for given in inputs.values() if (given.get("key") or "").startswith(f"jobs/{job_id}/")]
        stored_bytes = sum(file.get("bytes") or 0 for file in [*own, *artifacts])
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(stored_bytes=stored_bytes))
