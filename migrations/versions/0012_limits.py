"""What clients use of their quotas, and an index for claiming jobs fairly.

Revision ID: 0012
Revises: 0011
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "client_usage",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("metric", sa.String(length=32), nullable=False),
        sa.Column("period", sa.String(length=8), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_client_usage_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "client_id", "metric", "period", "starts_at", name=op.f("pk_client_usage")
        ),
    )
    op.create_index("ix_client_usage_starts_at", "client_usage", ["starts_at"], unique=False)
    op.create_index(
        "ix_job_waiting",
        "job",
        ["kind", "client_id", "run_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )


def downgrade() -> None:
    op.drop_index("ix_job_waiting", table_name="job")
    op.drop_table("client_usage")
