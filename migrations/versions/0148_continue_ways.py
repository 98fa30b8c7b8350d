"""How models go on with a text that broke off.

Revision ID: 0148
Revises: 0147
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0148"
down_revision: str | None = "0147"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "continue_way",
        sa.Column("endpoint", sa.String(length=256), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column(
            "learnt_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("endpoint", "model", name=op.f("pk_continue_way")),
    )


def downgrade() -> None:
    op.drop_table("continue_way")
