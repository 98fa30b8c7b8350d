"""In-app notifications, devices for push, preferences and suppressions.

Revision ID: 0095
Revises: 0090
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0095"
down_revision: str | None = "0090"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "suppression",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("address_hash", sa.LargeBinary(), nullable=False),
        sa.Column("address_hint", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=80), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_suppression_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppression")),
        sa.UniqueConstraint(
            "client_id",
            "channel",
            "address_hash",
            "scope",
            name=op.f("uq_suppression_client_id_channel_address_hash_scope"),
        ),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_suppression_client_id_id")),
    )
    op.create_index("ix_suppression_expires_at", "suppression", ["expires_at"], unique=False)
    op.create_table(
        "in_app_notification",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("delivery_id", sa.UUID(), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=256), nullable=False),
        sa.Column("body", sa.String(), nullable=True),
        sa.Column(
            "data", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("acked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_in_app_notification_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_in_app_notification")),
        sa.UniqueConstraint(
            "client_id", "delivery_id", name=op.f("uq_in_app_notification_client_id_delivery_id")
        ),
    )
    op.create_index(
        "ix_in_app_notification_created_at", "in_app_notification", ["created_at"], unique=False
    )
    op.create_index(
        "ix_in_app_notification_unread",
        "in_app_notification",
        ["user_id", "id"],
        unique=False,
        postgresql_where=sa.text("read_at is null"),
    )
    op.create_index(
        "ix_in_app_notification_user_id_id", "in_app_notification", ["user_id", "id"], unique=False
    )
    op.create_table(
        "preference",
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_preference_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "category", "channel", name=op.f("pk_preference")),
    )
    op.create_table(
        "push_device",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_push_device_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_push_device")),
        sa.UniqueConstraint(
            "client_id", "kind", "token_hash", name=op.f("uq_push_device_client_id_kind_token_hash")
        ),
    )
    op.create_index("ix_push_device_user_id", "push_device", ["user_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_push_device_user_id", table_name="push_device")
    op.drop_table("push_device")
    op.drop_table("preference")
    op.drop_index("ix_in_app_notification_user_id_id", table_name="in_app_notification")
    op.drop_index(
        "ix_in_app_notification_unread",
        table_name="in_app_notification",
        postgresql_where=sa.text("read_at is null"),
    )
    op.drop_index("ix_in_app_notification_created_at", table_name="in_app_notification")
    op.drop_table("in_app_notification")
    op.drop_index("ix_suppression_expires_at", table_name="suppression")
    op.drop_table("suppression")
