"""What clients note about their jobs, which job a retry repeats, and when a job is expected to end."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("metadata", sa.JSON()))
    op.add_column("jobs", sa.Column("retry_of", sa.String(64)))
    op.add_column("jobs", sa.Column("estimated_finish", sa.DateTime(timezone=True)))


def downgrade() -> None:
    for name in ("estimated_finish", "retry_of", "metadata"):
        op.drop_column("jobs", name)
