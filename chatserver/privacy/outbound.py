"""What endpoints were told of a person, and what they answered to that.

An event stays with its number, for numbers have no gaps; what it said of the person goes. What it
says of rooms and messages is read from there, where it was erased.
"""

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

PAGE: Final = 1000

_SCRUB: Final = text("""
with page as materialized (
  select seq from webhook_event where client_id = :client and seq > :after order by seq limit :limit
), hit as materialized (
  select e.seq from webhook_event e join page on page.seq = e.seq
  where e.client_id = :client and (
    (e.actor_type = 'user' and e.actor_id = :name)
    or position(cast(:quoted as text) in e.data::text) > 0
    or exists (select from room_event r where r.room_id = e.room_id and r.seq = e.room_seq
      and (r.data ->> 'user_id' = :name or r.data -> 'user_ids' ? cast(:name as text))))
), answers as (
  -- An answer may quote what it answers.
  update delivery_attempt a set response = null
  from hit join delivery d on d.source_seq = hit.seq and d.target_id = any (array(
    select id from webhook_endpoint where client_id = :client))
  where a.delivery_id = d.id and a.response is not null
), events as (
  update webhook_event e set
    actor_id = case when e.actor_type = 'user' and e.actor_id = :name then null
      else e.actor_id end,
    data = case when position(cast(:quoted as text) in e.data::text) > 0 then null
      else e.data end
  from hit where e.client_id = :client and e.seq = hit.seq returning e.seq
)
select (select max(seq) from page) as last, (select count(*) from events) as n
""")


async def scrub_told(
    session: AsyncSession, client_id: UUID, name: str, after: int
) -> tuple[int | None, int]:
    """Clear a page of events that name a person; where the next page begins, and how many."""
    found = (
        await session.execute(
            _SCRUB,
            {
                "client": client_id,
                "after": after,
                "limit": PAGE,
                "name": name,
                # External ids are plain ASCII: as JSON writes them.
                "quoted": f'"{name}"',
            },
        )
    ).one()
    return found.last, found.n
