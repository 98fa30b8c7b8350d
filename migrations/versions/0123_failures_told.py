"""Clients are told of deliveries that were lost, and of providers in trouble.

Revision ID: 0123
Revises: 0122
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0123"
down_revision: str | None = "0122"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# Endpoints that want everything want these, too.
_FOLLOW = """
update client c set followed = array(select distinct f.type from unnest(c.followed || array[
  'delivery.failed', 'provider.degraded', 'provider.paused', 'provider.resumed',
  'provider.disabling', 'provider.disabled']) f (type) order by f.type)
where exists (select from webhook_endpoint e where e.client_id = c.id and '*' = any (e.events))
"""
_LOST = "state in ('failed', 'expired', 'bounced') and channel <> 'webhook'"


def upgrade() -> None:
    op.create_table(
        "delivery_failure_told",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column(
            "upto",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_delivery_failure_told_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_delivery_failure_told")),
    )
    op.create_index(
        "ix_delivery_lost",
        "delivery",
        ["client_id", "settled_at"],
        postgresql_where=sa.text(_LOST),
    )
    op.execute(_FOLLOW)


def downgrade() -> None:
    op.drop_index("ix_delivery_lost", table_name="delivery")
    op.drop_table("delivery_failure_told")
