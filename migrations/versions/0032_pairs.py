"""A direct room is unique for its pair of people.

Revision ID: 0032
Revises: 0031
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0032"
down_revision: str | None = "0031"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# Of several rooms of one pair, from before this, the oldest is the one that is found again.
PAIRS = """
update room r set pair = p.pair from (
  select distinct on (client_id, pair) room_id, pair from (
    select m.client_id, m.room_id, string_agg(m.user_id::text, ':' order by m.user_id) as pair
    from member m join room d on d.id = m.room_id
    where d.type = 'direct' and d.deleted_at is null
    group by m.client_id, m.room_id having count(*) = 2) each_room
  order by client_id, pair, room_id) p
where r.id = p.room_id
"""


def upgrade() -> None:
    op.add_column("room", sa.Column("pair", sa.String(length=73), nullable=True))
    op.execute(PAIRS)
    op.create_index(
        "uq_room_pair",
        "room",
        ["client_id", "pair"],
        unique=True,
        postgresql_where=sa.text("pair is not null and deleted_at is null"),
    )


def downgrade() -> None:
    op.drop_index("uq_room_pair", table_name="room")
    op.drop_column("room", "pair")
