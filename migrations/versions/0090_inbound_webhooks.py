"""Inbound webhooks: sources, their secrets, what came and what was done about it.

Revision ID: 0090
Revises: 0081
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0090"
down_revision: str | None = "0081"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "inbound_source",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=256), nullable=True),
        sa.Column("scheme", sa.String(length=16), nullable=False),
        sa.Column(
            "signing", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("dedupe", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("url", sa.String(length=2048), nullable=True),
        sa.Column("tolerance_s", sa.Integer(), nullable=False),
        sa.Column("rate_per_s", sa.Float(), nullable=False),
        sa.Column("rate_burst", sa.Integer(), nullable=False),
        sa.Column(
            "rules", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False
        ),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_inbound_source_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_source")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_inbound_source_client_id_id")),
        sa.UniqueConstraint("client_id", "slug", name=op.f("uq_inbound_source_client_id_slug")),
    )
    op.create_table(
        "inbound_event",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("source_id", sa.UUID(), nullable=False),
        sa.Column("external_id", sa.String(length=200), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "headers", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("secret_hint", sa.String(length=16), nullable=True),
        sa.Column("hops", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("replays", sa.Integer(), server_default="0", nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(length=1000), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "source_id"],
            ["inbound_source.client_id", "inbound_source.id"],
            name=op.f("fk_inbound_event_client_id_source_id_inbound_source"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_event")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_inbound_event_client_id_id")),
        sa.UniqueConstraint(
            "source_id", "external_id", name=op.f("uq_inbound_event_source_id_external_id")
        ),
    )
    op.create_index("ix_inbound_event_received_at", "inbound_event", ["received_at"], unique=False)
    op.create_index(
        "ix_inbound_event_source_id_id", "inbound_event", ["source_id", "id"], unique=False
    )
    op.create_index(
        "ix_inbound_event_source_id_status_id",
        "inbound_event",
        ["source_id", "status", "id"],
        unique=False,
    )
    op.create_table(
        "inbound_refusal",
        sa.Column("source_id", sa.UUID(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("explanation", sa.String(length=500), nullable=False),
        sa.Column(
            "details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "source_id"],
            ["inbound_source.client_id", "inbound_source.id"],
            name=op.f("fk_inbound_refusal_client_id_source_id_inbound_source"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("source_id", "slot", name=op.f("pk_inbound_refusal")),
    )
    op.create_table(
        "inbound_secret",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("source_id", sa.UUID(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.String(length=16), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "source_id"],
            ["inbound_source.client_id", "inbound_source.id"],
            name=op.f("fk_inbound_secret_client_id_source_id_inbound_source"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_secret")),
    )
    op.create_index("ix_inbound_secret_source_id", "inbound_secret", ["source_id"], unique=False)
    op.create_table(
        "inbound_effect",
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column(
            "arguments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("room_id", sa.UUID(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column(
            "result", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("error", sa.String(length=1000), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "event_id"],
            ["inbound_event.client_id", "inbound_event.id"],
            name=op.f("fk_inbound_effect_client_id_event_id_inbound_event"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("event_id", "rule", "place", name=op.f("pk_inbound_effect")),
    )


def downgrade() -> None:
    op.drop_table("inbound_effect")
    op.drop_index("ix_inbound_secret_source_id", table_name="inbound_secret")
    op.drop_table("inbound_secret")
    op.drop_table("inbound_refusal")
    op.drop_index("ix_inbound_event_source_id_status_id", table_name="inbound_event")
    op.drop_index("ix_inbound_event_source_id_id", table_name="inbound_event")
    op.drop_index("ix_inbound_event_received_at", table_name="inbound_event")
    op.drop_table("inbound_event")
    op.drop_table("inbound_source")
