"""Legal holds: people and rooms that must be kept.

Revision ID: 0014
Revises: 0013
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=True),
        sa.Column("room_id", sa.UUID(), nullable=True),
        sa.Column("reason", sa.String(length=512), nullable=False),
        sa.Column("placed_by", sa.String(length=160), nullable=False),
        sa.Column(
            "placed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("released_by", sa.String(length=160), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(user_id is null) <> (room_id is null)", name=op.f("ck_legal_hold_one_subject")
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_legal_hold_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "room_id"],
            ["room.client_id", "room.id"],
            name=op.f("fk_legal_hold_client_id_room_id_room"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_legal_hold_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_hold")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_legal_hold_client_id_id")),
    )
    op.create_index("ix_legal_hold_client_id_room_id", "legal_hold", ["client_id", "room_id"])
    op.create_index("ix_legal_hold_client_id_user_id", "legal_hold", ["client_id", "user_id"])


def downgrade() -> None:
    op.drop_index("ix_legal_hold_client_id_user_id", table_name="legal_hold")
    op.drop_index("ix_legal_hold_client_id_room_id", table_name="legal_hold")
    op.drop_table("legal_hold")
