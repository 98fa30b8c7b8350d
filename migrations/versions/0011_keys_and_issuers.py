"""Issuers of tokens, and when a key's lifetime began.

Revision ID: 0011
Revises: 0010
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "jwt_issuer",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("audience", sa.String(length=256), nullable=False),
        sa.Column("algorithms", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("pem", sa.String(), nullable=True),
        sa.Column("jwks_url", sa.String(length=2048), nullable=True),
        sa.Column("user_claim", sa.String(length=64), nullable=False),
        sa.Column("scope_claim", sa.String(length=64), nullable=True),
        sa.Column("required_claims", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_jwt_issuer_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jwt_issuer")),
        sa.UniqueConstraint(
            "client_id", "issuer", "audience", name=op.f("uq_jwt_issuer_client_id_issuer_audience")
        ),
    )
    op.create_index("ix_jwt_issuer_issuer", "jwt_issuer", ["issuer"], unique=False)
    op.add_column(
        "key_family",
        sa.Column(
            "issued_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
    )


def downgrade() -> None:
    op.drop_column("key_family", "issued_at")
    op.drop_index("ix_jwt_issuer_issuer", table_name="jwt_issuer")
    op.drop_table("jwt_issuer")
