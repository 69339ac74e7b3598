"""The job whose curve a selection is from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("parent_id", sa.String(64)))


def downgrade() -> None:
    op.drop_column("jobs", "parent_id")
