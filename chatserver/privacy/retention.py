"""Messages and facts that are older than a client keeps them, for rooms of a type."""

from typing import Final
from uuid import UUID

from sqlalchemy import text

from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from chatserver.privacy.holds import IS_HELD

ROOMS: Final = 200
ROWS: Final = 2000

_POLICIES: Final = text("""
select c.id, t.key as type, (t.value)::int as days
from client c cross join lateral jsonb_each_text(c.settings -> 'retention') t
where jsonb_typeof(c.settings -> 'retention') = 'object' and t.value is not null
""")
# What a legal hold keeps is never too old.
# The log has no gaps: its oldest fact is the one at `min_seq`, and it tells whether there is any.
_AGED: Final = text(f"""
select r.id from room r
join room_event e on e.room_id = r.id and e.seq = r.min_seq
where r.client_id = :client and r.type = :type and r.deleted_at is null
  and e.created_at < clock_timestamp() - make_interval(days => :days)
  and not {IS_HELD}
order by r.id limit :limit
""")  # noqa: S608 - a constant of ours
# At most `limit` facts a time, so that the room is never locked for long. The epoch stays: nobody
# has to reload who is up to date, everyone else is told `history.truncated`.
_RAISE: Final = text(f"""
update room r set min_seq = aged.up_to + 1
from (
  select max(e.seq) as up_to from (
    select seq, created_at from room_event
    where room_id = :room and seq >= (select min_seq from room where id = :room)
    order by seq limit :limit) e
  where e.created_at < clock_timestamp() - make_interval(days => :days)
) aged
where r.id = :room and r.client_id = :client and aged.up_to is not null
  and r.min_seq <= aged.up_to and not {IS_HELD}
returning r.min_seq
""")  # noqa: S608 - a constant of ours
_DELETE_MESSAGES: Final = text(
    "delete from message where client_id = :client and room_id = :room and seq < :floor"
)
_DELETE_MENTIONS: Final = text(
    "delete from mention where client_id = :client and room_id = :room and seq < :floor"
)
_DELETE_FACTS: Final = text(
    "delete from room_event where client_id = :client and room_id = :room and seq < :floor"
)


class Keeper:
    """Deletes what is too old, in short transactions: it may be stopped anywhere."""

    def __init__(self, open_work: Open[UnitOfWork]) -> None:
        self._open_work = open_work

    async def apply(self) -> int:
        """Apply every client's retention; how many facts were removed."""
        async with self._open_work() as work:
            policies = list((await work.session.execute(_POLICIES)).mappings())
        removed = 0
        for policy in policies:
            removed += await self._apply(policy["id"], policy["type"], policy["days"])
        return removed

    async def _apply(self, client_id: UUID, room_type: str, days: int) -> int:
        removed = 0
        while True:
            async with self._open_work() as work:
                values = {"client": client_id, "type": room_type, "days": days, "limit": ROOMS}
                rooms = list((await work.session.execute(_AGED, values)).scalars())
            for room_id in rooms:
                removed += await self._truncate(client_id, room_id, days)
            if len(rooms) < ROOMS:
                return removed

    async def _truncate(self, client_id: UUID, room_id: UUID, days: int) -> int:
        removed = 0
        while True:
            async with self._open_work() as work:
                values = {"client": client_id, "room": room_id, "days": days, "limit": ROWS}
                floor = (await work.session.execute(_RAISE, values)).scalar_one_or_none()
                if floor is None:
                    return removed
                values = {"client": client_id, "room": room_id, "floor": floor}
                await work.session.execute(_DELETE_MESSAGES, values)
                await work.session.execute(_DELETE_MENTIONS, values)
                done = await work.session.execute(_DELETE_FACTS, values)
                removed += int(done.rowcount)  # type: ignore[attr-defined]  # of a delete
