"""Webhook endpoints, their secrets, and numbered events.

Revision ID: 0081
Revises: 0080
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0081"
down_revision: str | None = "0080"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _time(name: str, *, nullable: bool = False) -> "sa.Column[object]":
    default = None if nullable else sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=True),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("room_ids", postgresql.ARRAY(sa.UUID()), nullable=True),
        sa.Column("room_types", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("bot_ids", postgresql.ARRAY(sa.UUID()), nullable=True),
        sa.Column("from_seq", sa.BigInteger(), server_default="0", nullable=False),
        _time("created_at"),
        _time("updated_at"),
        _time("deleted_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "id"],
            ["delivery_target.client_id", "delivery_target.id"],
            name=op.f("fk_webhook_endpoint_client_id_id_delivery_target"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoint")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_webhook_endpoint_client_id_id")),
    )
    op.create_table(
        "webhook_secret",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("endpoint_id", sa.UUID(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        _time("created_at"),
        _time("expires_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "endpoint_id"],
            ["webhook_endpoint.client_id", "webhook_endpoint.id"],
            name=op.f("fk_webhook_secret_client_id_endpoint_id_webhook_endpoint"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_secret")),
    )
    op.create_index(
        "ix_webhook_secret_endpoint_id", "webhook_secret", ["endpoint_id"], unique=False
    )
    op.create_table(
        "webhook_event_number",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_webhook_event_number_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_webhook_event_number")),
    )
    op.create_table(
        "webhook_event",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("room_id", sa.UUID(), nullable=True),
        sa.Column("room_type", sa.String(length=16), nullable=True),
        sa.Column("room_seq", sa.BigInteger(), nullable=True),
        sa.Column("actor_type", sa.String(length=8), nullable=False),
        sa.Column("actor_id", sa.String(length=128), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("only_endpoint_id", sa.UUID(), nullable=True),
        sa.Column("hops", sa.SmallInteger(), server_default="0", nullable=False),
        _time("created_at"),
        sa.PrimaryKeyConstraint("client_id", "seq", name=op.f("pk_webhook_event")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_webhook_event_client_id_id")),
    )


def downgrade() -> None:
    for table in (
        *("webhook_event", "webhook_event_number", "webhook_secret", "webhook_endpoint"),
    ):
        op.drop_table(table)
