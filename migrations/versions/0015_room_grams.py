"""Finding rooms by a part of their title or external id, by an index.

Every three letters that follow each other are a gram; a text that holds `q` holds all grams of `q`.
PostgreSQL's own extension for that is not everywhere, and a function of our own is a few lines.

Revision ID: 0015
Revises: 0014
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# The client stands in each gram: what other tenants call their rooms is not even looked at.
GRAMS = """
create function room_grams(p_client uuid, p_title text, p_external_id text) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    array_agg(distinct left(md5(p_client::text), 8) || substr(found.text, at, 3)), '{}')
  from (values (lower(p_title)), (lower(p_external_id))) found (text),
    lateral generate_series(1, length(found.text) - 2) at
$$
"""


def upgrade() -> None:
    op.execute(GRAMS)
    op.execute(
        "create index ix_room_grams on room using gin (room_grams(client_id, title, external_id))"
    )


def downgrade() -> None:
    op.execute("drop index ix_room_grams")
    op.execute("drop function room_grams(uuid, text, text)")
