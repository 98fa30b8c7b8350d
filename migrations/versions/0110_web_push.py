"""Web push: the server's key, what a try did at each device, and who waits for whose end.

Revision ID: 0110
Revises: 0100
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0110"
down_revision: str | None = "0100"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    now = sa.text("clock_timestamp()")
    op.create_table(
        "server_key",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_server_key")),
    )
    op.create_table(
        "delivery_attempt_part",
        sa.Column("delivery_id", sa.UUID(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("no", sa.Integer(), nullable=False),
        sa.Column("part_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("retry_after_s", sa.Integer(), nullable=True),
        sa.Column("peer", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint(
            "delivery_id", "generation", "no", "part_id", name=op.f("pk_delivery_attempt_part")
        ),
    )
    op.create_index(
        "ix_delivery_attempt_part_started_at",
        "delivery_attempt_part",
        ["started_at"],
        unique=False,
        postgresql_using="brin",
    )
    op.create_index(
        "ix_notification_delivery_instead_of",
        "notification_delivery",
        ["instead_of"],
        unique=False,
        postgresql_where=sa.text("instead_of is not null"),
    )


def downgrade() -> None:
    op.drop_index("ix_notification_delivery_instead_of", "notification_delivery")
    op.drop_table("delivery_attempt_part")
    op.drop_table("server_key")
