"""Single tokens that were revoked, and when a used-up key last raised the alarm.

Revision ID: 0013
Revises: 0012
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "revoked_token",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("jti", sa.String(length=1024), nullable=False),
        sa.Column("kept_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "revoked_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_revoked_token_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", "handle", name=op.f("pk_revoked_token")),
    )
    op.create_index(
        "ix_revoked_token_client_id_revoked_at", "revoked_token", ["client_id", "revoked_at"]
    )
    op.create_index("ix_revoked_token_kept_until", "revoked_token", ["kept_until"])
    op.add_column("key_retired", sa.Column("alarmed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("key_retired", "alarmed_at")
    op.drop_index("ix_revoked_token_kept_until", table_name="revoked_token")
    op.drop_index("ix_revoked_token_client_id_revoked_at", table_name="revoked_token")
    op.drop_table("revoked_token")
