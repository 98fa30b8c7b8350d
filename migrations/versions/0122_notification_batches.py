"""Notifications to ten thousand by a file: its lines wait here, sealed, until they are promised.

Revision ID: 0122
Revises: 0120
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0122"
down_revision: str | None = "0120"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "notification_batch",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("recipients", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("skipped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_notification_batch_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_batch")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_notification_batch_client_id_id")),
    )
    op.create_table(
        "notification_batch_part",
        sa.Column("batch_id", sa.UUID(), nullable=False),
        sa.Column("no", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "batch_id"],
            ["notification_batch.client_id", "notification_batch.id"],
            name=op.f("fk_notification_batch_part_client_id_batch_id_notification_batch"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("batch_id", "no", name=op.f("pk_notification_batch_part")),
    )
    op.add_column("notification", sa.Column("batch_id", sa.UUID(), nullable=True))
    op.create_index(
        "ix_notification_batch_id",
        "notification",
        ["batch_id"],
        postgresql_where=sa.text("batch_id is not null"),
    )


def downgrade() -> None:
    op.drop_index("ix_notification_batch_id", table_name="notification")
    op.drop_column("notification", "batch_id")
    op.drop_table("notification_batch_part")
    op.drop_table("notification_batch")
