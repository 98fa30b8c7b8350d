"""What vendors said of a person: inbound webhooks that name somebody who is erased.

The row of an event stays, because its id must not count twice; what it said goes.
"""

from typing import Final
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
_SCRUB: Final = text("""
with page as (select unnest(cast(:ids as uuid[])) as id), hit as materialized (
  select e.id from inbound_event e join page on page.id = e.id
  where position(cast(:quoted as bytea) in e.body) > 0
    or position(cast(:field as bytea) in e.body) > 0
    or exists (select from inbound_effect f
      where f.event_id = e.id and position(cast(:text as text) in f.arguments::text) > 0)
), effects as (
  update inbound_effect f set arguments = '{}', result = '{}', error = null,
    state = case when f.state = 'planned' then 'skipped' else f.state end
  from hit where f.event_id = hit.id
), events as (
  update inbound_event e set body = '', headers = '{}', error = null
  from hit where e.id = hit.id returning e.id
)
select count(*) from events
""")


async def scrub_page(
    session: AsyncSession, client_id: UUID, name: str, after: UUID
) -> tuple[UUID | None, int]:
    """Clear a page of events that name a person; where the next page begins, and how many."""
    quoted = orjson.dumps(name)
    page = await session.scalars(_PAGE, {"client": client_id, "after": after, "limit": PAGE})
    ids = list(page)
    if not ids:
        return None, 0
    cleared = await session.execute(
        _SCRUB,
        {
            "ids": ids,
            "quoted": quoted,
            "field": f"={quote_plus(name)}".encode(),
            "text": quoted.decode(),
        },
    )
    return ids[-1], int(cleared.scalar_one())
