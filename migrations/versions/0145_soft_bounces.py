"""Mails that an address did not take without being dead, counted for some days.

Revision ID: 0145
Revises: 0141
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0145"
down_revision: str | None = "0141"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "soft_bounce",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("address_hash", sa.LargeBinary(), nullable=False),
        sa.Column("delivery_id", sa.UUID(), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_soft_bounce_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "client_id", "address_hash", "delivery_id", name=op.f("pk_soft_bounce")
        ),
    )
    op.create_index("ix_soft_bounce_at", "soft_bounce", ["at"], postgresql_using="brin")


def downgrade() -> None:
    op.drop_table("soft_bounce")
