"""Edits, reactions, mentions, threads and pins; who may post, mutes, slow mode and bans.

Revision ID: 0030
Revises: 0020
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0030"
down_revision: str | None = "0020"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _now(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=sa.text("clock_timestamp()"),
        nullable=False,
    )


def _columns() -> dict[str, list[sa.Column[object]]]:
    """Give the new columns by table; a column belongs to one statement, so they are made anew."""
    return {
        "message": [
            sa.Column("version", sa.Integer(), server_default="1", nullable=False),
            sa.Column("changed_seq", sa.BigInteger(), server_default="0", nullable=False),
            sa.Column(
                "reactions",
                postgresql.JSONB(astext_type=sa.Text()),
                server_default="[]",
                nullable=False,
            ),
            sa.Column("silent", sa.Boolean(), server_default="false", nullable=False),
            sa.Column("thread_id", sa.UUID(), nullable=True),
            sa.Column("reply_count", sa.Integer(), server_default="0", nullable=False),
            sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=True),
        ],
        "room": [
            sa.Column("slow_mode_s", sa.Integer(), server_default="0", nullable=False),
            sa.Column("post_role", sa.String(length=16), server_default="guest", nullable=False),
            sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        ],
        "member": [
            sa.Column("marked_unread", sa.Boolean(), server_default="false", nullable=False),
            sa.Column("muted_until", sa.DateTime(timezone=True), nullable=True),
            sa.Column("last_sent_at", sa.DateTime(timezone=True), nullable=True),
        ],
    }


def upgrade() -> None:
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column)
    op.create_index(
        "ix_message_thread_id_seq",
        "message",
        ["thread_id", "seq"],
        unique=False,
        postgresql_where=sa.text("thread_id is not null"),
    )
    op.create_index(
        "ix_message_pinned",
        "message",
        ["room_id", "pinned_at"],
        unique=False,
        postgresql_where=sa.text("pinned"),
    )
    op.create_table(
        "reaction",
        sa.Column("message_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("emoji", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        _now("created_at"),
        sa.ForeignKeyConstraint(
            ["client_id", "message_id"],
            ["message.client_id", "message.id"],
            name=op.f("fk_reaction_client_id_message_id_message"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_reaction_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", "user_id", "emoji", name=op.f("pk_reaction")),
    )
    op.create_index("ix_reaction_user_id", "reaction", ["user_id", "message_id"], unique=False)
    op.create_table(
        "message_edit",
        sa.Column("message_id", sa.UUID(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        _now("replaced_at"),
        sa.ForeignKeyConstraint(
            ["client_id", "message_id"],
            ["message.client_id", "message.id"],
            name=op.f("fk_message_edit_client_id_message_id_message"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", "version", name=op.f("pk_message_edit")),
    )
    op.create_table(
        "mention",
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("target", sa.String(length=128), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "room_id"],
            ["room.client_id", "room.id"],
            name=op.f("fk_mention_client_id_room_id_room"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("room_id", "target", "seq", name=op.f("pk_mention")),
    )
    op.create_table(
        "room_ban",
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(length=256), nullable=True),
        _now("created_at"),
        sa.ForeignKeyConstraint(
            ["client_id", "room_id"],
            ["room.client_id", "room.id"],
            name=op.f("fk_room_ban_client_id_room_id_room"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_room_ban_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("room_id", "user_id", name=op.f("pk_room_ban")),
    )
    op.create_index("ix_room_ban_user_id", "room_ban", ["user_id"], unique=False)


def downgrade() -> None:
    for table in ("room_ban", "mention", "message_edit", "reaction"):
        op.drop_table(table)
    op.drop_index("ix_message_pinned", table_name="message")
    op.drop_index("ix_message_thread_id_seq", table_name="message")
    for table, columns in _columns().items():
        for column in columns:
            op.drop_column(table, column.name)
