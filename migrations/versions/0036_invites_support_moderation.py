"""Invite links, the queue of support rooms, rules for texts and flagged messages.

Revision ID: 0036
Revises: 0032
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0036"
down_revision: str | None = "0032"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    now = None if nullable else sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), server_default=now, nullable=nullable)


def _of_room(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["client_id", "room_id"],
        ["room.client_id", "room.id"],
        name=op.f(f"fk_{table}_client_id_room_id_room"),
        ondelete="CASCADE",
    )


def upgrade() -> None:
    op.create_table(
        "invite",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("max_uses", sa.Integer(), nullable=True),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=True),
        _moment("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        _moment("revoked_at", nullable=True),
        _of_room("invite"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invite")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_invite_code_hash")),
    )
    op.create_index("ix_invite_room_id", "invite", ["room_id", "created_at"])
    op.create_index("ix_invite_expires_at", "invite", ["expires_at"])

    op.add_column("room", sa.Column("assignee", sa.String(length=128), nullable=True))
    op.add_column("room", _moment("closed_at", nullable=True))
    op.create_index(
        "ix_room_support",
        "room",
        ["client_id", "id"],
        postgresql_where=sa.text("type = 'support' and deleted_at is null"),
    )

    op.create_table(
        "moderation_rule",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("terms", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("action", sa.String(length=8), nullable=False),
        sa.Column("room_ids", postgresql.ARRAY(sa.UUID()), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_moderation_rule_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moderation_rule")),
    )
    op.create_index("ix_moderation_rule_client_id", "moderation_rule", ["client_id", "id"])

    op.create_table(
        "flag",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("message_id", sa.UUID(), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("flagged_by", sa.String(length=128), nullable=True),
        sa.Column("rule_id", sa.UUID(), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("resolved_by", sa.String(length=128), nullable=True),
        _moment("created_at"),
        _moment("resolved_at", nullable=True),
        _of_room("flag"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flag")),
        sa.UniqueConstraint("message_id", "source", name=op.f("uq_flag_message_id_source")),
    )
    op.create_index(
        "ix_flag_open",
        "flag",
        ["client_id", "created_at", "id"],
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index("ix_flag_created_at", "flag", ["created_at"])


def downgrade() -> None:
    op.drop_table("flag")
    op.drop_table("moderation_rule")
    op.drop_index("ix_room_support", table_name="room")
    op.drop_column("room", "closed_at")
    op.drop_column("room", "assignee")
    op.drop_table("invite")
