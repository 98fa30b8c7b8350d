"""What vendors said of a person: inbound webhooks that name somebody.

The row of an event stays, because its id must not count twice; what it said goes.
"""

from typing import Any, Final
from urllib.parse import quote_plus
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# Of up to a megabyte each.
PAGE: Final = 100
FIRST: Final = UUID(int=0)

# Locked in a statement of its own: what a worker plans for an event just now is then seen below.
_PAGE: Final = text("""
select id from inbound_event where client_id = :client and id > :after order by id limit :limit
for update
""")
# Found by the external id as a JSON text or as a field of a form, and by what rules made of it.
_NAMES: Final = """
  (position(cast(:quoted as bytea) in e.body) > 0
    or position(cast(:field as bytea) in e.body) > 0
    or position(cast(:part as bytea) in e.body) > 0
    or exists (select from inbound_effect f
      where f.event_id = e.id and position(cast(:text as text) in f.arguments::text) > 0))
"""
_SCRUB: Final = text(f"""
with page as (select unnest(cast(:ids as uuid[])) as id), hit as materialized (
  select e.id from inbound_event e join page on page.id = e.id where {_NAMES}
), effects as (
  update inbound_effect f set arguments = '{{}}', result = '{{}}', error = null,
    state = case when f.state = 'planned' then 'skipped' else f.state end
  from hit where f.event_id = hit.id
), events as (
  update inbound_event e set body = '', headers = '{{}}', error = null
  from hit where e.id = hit.id returning e.id
)
select count(*) from events
""")  # noqa: S608 - a constant
_READ: Final = text(f"""
with page as materialized (
  select * from inbound_event where client_id = :client and id > :after order by id limit :limit)
select e.id, s.slug as source, e.external_id, e.received_at, named.is_so,
  case when named.is_so then e.body end as body
from page e join inbound_source s on s.id = e.source_id
cross join lateral (select {_NAMES} as is_so offset 0) named order by e.id
""")  # noqa: S608 - a constant


async def scrub_page(
    session: AsyncSession, client_id: UUID, name: str, after: UUID
) -> tuple[UUID | None, int]:
    """Clear a page of events that name a person; where the next page begins, and how many."""
    page = await session.scalars(_PAGE, {"client": client_id, "after": after, "limit": PAGE})
    ids = list(page)
    if not ids:
        return None, 0
    cleared = await session.execute(_SCRUB, {"ids": ids, **_written(name)})
    return ids[-1], int(cleared.scalar_one())


async def read_page(
    session: AsyncSession, client_id: UUID, name: str, after: UUID, *, with_body: bool
) -> tuple[UUID | None, list[dict[str, Any]]]:
    """Read those of a page of events that name a person; where the next page begins, and they.

    What an event says may be of others as well: `with_body` is for the application alone.
    """
    values = {"client": client_id, "after": after, "limit": PAGE, **_written(name)}
    rows = (await session.execute(_READ, values)).mappings().all()
    found = []
    for row in rows:
        if row["is_so"]:
            members = {each: row[each] for each in ("id", "source", "external_id", "received_at")}
            if with_body:
                members["body"] = bytes(row["body"]).decode("utf-8", "replace")
            found.append(members)
    return (rows[-1]["id"] if rows else None), found


def _written(name: str) -> dict[str, Any]:
    """Give the ways in which a name stands in JSON, in a form, and in a form of several parts."""
    quoted = orjson.dumps(name)
    return {
        "quoted": quoted,
        "field": f"={quote_plus(name)}".encode(),
        "part": f"\r\n\r\n{name}\r\n--".encode(),
        "text": quoted.decode(),
    }
