"""Mails carry files: which notification needs which.

Revision ID: 0160
Revises: 0150
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0160"
down_revision: str | None = "0150"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "notification_file",
        sa.Column("file_id", sa.UUID(), nullable=False),
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("purge_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "file_id"],
            ["file.client_id", "file.id"],
            name=op.f("fk_notification_file_client_id_file_id_file"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "notification_id"],
            ["notification.client_id", "notification.id"],
            name=op.f("fk_notification_file_client_id_notification_id_notification"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("file_id", "notification_id", name=op.f("pk_notification_file")),
    )
    op.create_index(
        "ix_notification_file_notification",
        "notification_file",
        ["client_id", "notification_id"],
        unique=False,
    )
    op.create_index(
        "ix_notification_file_purge_at", "notification_file", ["purge_at"], unique=False
    )


def downgrade() -> None:
    op.drop_table("notification_file")
