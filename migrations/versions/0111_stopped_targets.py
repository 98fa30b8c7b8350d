"""Which targets are stopped is looked for often: what waits for them goes another way.

Revision ID: 0111
Revises: 0110
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0111"
down_revision: str | None = "0110"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

STOPPED = "state in ('paused', 'disabled', 'deleted') or open_until is not null"


def upgrade() -> None:
    op.create_index(
        "ix_delivery_target_stopped",
        "delivery_target",
        ["channel"],
        unique=False,
        postgresql_where=sa.text(STOPPED),
    )
    # Named by a digest that anybody could compute; from now on by a MAC, as in suppressions.
    op.execute("update notification_delivery set address_hash = null")


def downgrade() -> None:
    op.drop_index("ix_delivery_target_stopped", "delivery_target")
