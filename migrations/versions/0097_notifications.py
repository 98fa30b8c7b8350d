"""Notifications: what was asked to be told to whom.

Revision ID: 0097
Revises: 0096
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0097"
down_revision: str | None = "0096"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _of_notification(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["client_id", "notification_id"],
        ["notification.client_id", "notification.id"],
        name=op.f(f"fk_{table}_client_id_notification_id_notification"),
        ondelete="CASCADE",
    )


def upgrade() -> None:
    op.create_table(
        "notification",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=True),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("details", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("scheduled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_notification_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_notification_client_id_id")),
    )
    op.create_table(
        "notification_content",
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("purge_at", sa.DateTime(timezone=True), nullable=False),
        _of_notification("notification_content"),
        sa.PrimaryKeyConstraint("notification_id", "channel", name=op.f("pk_notification_content")),
    )
    op.create_index("ix_notification_content_purge_at", "notification_content", ["purge_at"])
    op.create_table(
        "notification_delivery",
        sa.Column("delivery_id", sa.UUID(), nullable=False),
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("person", sa.String(length=128), nullable=True),
        sa.Column("address_hash", sa.LargeBinary(), nullable=True),
        sa.Column("address", sa.LargeBinary(), nullable=True),
        sa.Column("route", postgresql.ARRAY(sa.UUID()), nullable=False),
        sa.Column("unless", sa.String(length=16), nullable=True),
        sa.Column("instead_of", sa.UUID(), nullable=True),
        _of_notification("notification_delivery"),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_notification_delivery")),
    )
    op.create_index(
        "ix_notification_delivery_notification_id",
        "notification_delivery",
        ["notification_id", "position"],
    )
    op.create_index(
        "ix_notification_delivery_person", "notification_delivery", ["client_id", "person"]
    )


def downgrade() -> None:
    op.drop_table("notification_delivery")
    op.drop_table("notification_content")
    op.drop_table("notification")
