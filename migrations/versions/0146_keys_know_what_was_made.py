"""An idempotency key knows what its first request made, from the same transaction.

Revision ID: 0146
Revises: 0145
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0146"
down_revision: str | None = "0145"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("idempotency", sa.Column("made", sa.UUID(), nullable=True))


def downgrade() -> None:
    op.drop_column("idempotency", "made")
