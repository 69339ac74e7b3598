"""Models and datasets that were uploaded by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("serial", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "id", name=op.f("pk_uploads")),
    )
    op.create_index("ix_uploads_used_at", "uploads", ["used_at"])
    op.create_table(
        "upload_objects",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_upload_objects")),
        sa.UniqueConstraint("key", name=op.f("uq_upload_objects_key")),
    )
    op.create_table(
        "upload_files",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("upload_id", sa.String(64), nullable=False),
        sa.Column("part", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("filename", sa.Text()),
        sa.PrimaryKeyConstraint("owner", "upload_id", "part", name=op.f("pk_upload_files")),
        sa.ForeignKeyConstraint(["sha256"], ["upload_objects.sha256"], name=op.f("fk_upload_files_sha256_upload_objects")),
        sa.ForeignKeyConstraint(
            ["owner", "upload_id"], ["uploads.owner", "uploads.id"], name=op.f("fk_upload_files_owner_upload_id_uploads")
        ),
    )
    op.create_index("ix_upload_files_sha256", "upload_files", ["sha256"])


def downgrade() -> None:
    op.drop_table("upload_files")
    op.drop_table("upload_objects")
    op.drop_table("uploads")
