"""How messages become findable: one process follows the log, and no send waits for it."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, Protocol
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.infra.database import Database
from chatserver.kernel.errors import UnavailableError

log = structlog.get_logger()

SLICE: Final = 500
PAUSE_S: Final = 0.5
AWAY_S: Final = 2.0
# A fact's time is taken before its commit: what commits late is found by looking back. A little
# each time, and once in a while as far back as a transaction may last.
BACK_S: Final = 2.0
FAR_BACK_S: Final = 60.0
FAR_BACK_EVERY_S: Final = 30.0

# Facts about messages, in the order of the log's index, each message once. `$back` makes the walk
# begin earlier than where it stands.
_NEXT: Final = text("""
with place as (
  select greatest(at, '-infinity') - make_interval(secs => :back) as at,
    case when :back > 0 then '00000000-0000-0000-0000-000000000000' else room_id end as room_id,
    case when :back > 0 then 0 else seq end as seq
  from search_progress
), given as (
  select coalesce(cast(:at as timestamptz), p.at) as at,
    coalesce(cast(:room as uuid), p.room_id) as room_id,
    coalesce(cast(:seq as bigint), p.seq) as seq
  from place p
)
select e.created_at, e.room_id, e.seq, e.type, e.message_id
from given g, room_event e
where (e.created_at, e.room_id, e.seq) > (g.at, g.room_id, g.seq)
order by e.created_at, e.room_id, e.seq limit :limit
""")
_PUT: Final = text("""
insert into message_search (message_id, client_id, room_id, seq, created_at, search)
select m.id, m.client_id, m.room_id, m.seq, m.created_at,
  message_search_vector(m, coalesce(c.settings ->> 'search_language', 'simple'))
from message m join client c on c.id = m.client_id
where m.id = any (:ids) and m.content <> '' and m.deleted_at is null
on conflict (message_id) do update set search = excluded.search
where message_search.search is distinct from excluded.search
""")
# Most facts are seen several times, by looking back: what is there already costs no more than that.
_PUT_MISSING: Final = text(
    _PUT.text.replace(
        "and m.deleted_at is null",
        "and m.deleted_at is null"
        " and not exists (select from message_search s where s.message_id = m.id)",
    )
)
_DROP: Final = text("""
delete from message_search s using message m
where s.message_id = any (:ids) and m.id = s.message_id
  and (m.deleted_at is not null or m.content = '')
""")
# An erasure overwrites many messages and tells of them by one fact.
_DROP_ERASED: Final = text("""
delete from message_search s using message m
where m.room_id = any (:ids) and m.sender_key = 'erased' and s.message_id = m.id
""")
_PASS: Final = text(
    "update search_progress set at = :at, room_id = :room, seq = :seq"
    " where (at, room_id, seq) < (:at, :room, :seq)"
)
_OF_CLIENT: Final = text(
    "select id from message where client_id = :client and (cast(:after as uuid) is null"
    " or id > :after) order by id limit :limit"
)
# What is done about facts, by type, in this order: what was deleted after all is dropped last.
_DONE: Final = {
    "message.created": _PUT_MISSING,
    "message.updated": _PUT,
    "message.deleted": _DROP,
    "messages.erased": _DROP_ERASED,
}


class Leads(Protocol):
    """One process of all may index."""

    async def leads(self) -> bool: ...

    async def resign(self) -> None: ...


class Indexer:
    def __init__(self, database: Database, *, slice_: int = SLICE) -> None:
        self._database = database
        self._slice = slice_

    async def catch_up(self, *, back_s: float = 0.0) -> int:
        """Index what the log has had since; how many facts were looked at."""
        looked_at = 0
        place: tuple[object, object, object] = (None, None, None)
        while True:
            async with self._database.transaction() as session:
                asked = {
                    "back": back_s,
                    "at": place[0],
                    "room": place[1],
                    "seq": place[2],
                    "limit": self._slice,
                }
                facts = list(await session.execute(_NEXT, asked))
                if not facts:
                    return looked_at
                about: dict[str, set[UUID]] = defaultdict(set)
                for fact in facts:
                    erased = fact.type == "messages.erased"
                    about[fact.type].add(fact.room_id if erased else fact.message_id)
                for kind, statement in _DONE.items():
                    if about[kind]:
                        await session.execute(statement, {"ids": list(about[kind])})
                last = facts[-1]
                place = (last.created_at, last.room_id, last.seq)
                await session.execute(
                    _PASS, {"at": last.created_at, "room": last.room_id, "seq": last.seq}
                )
            looked_at += len(facts)
            if len(facts) < self._slice:
                return looked_at

    @staticmethod
    async def put_with(session: AsyncSession, message_ids: Sequence[UUID]) -> None:
        """Index messages in the transaction that they come in with."""
        await session.execute(_PUT, {"ids": list(message_ids)})

    async def put(self, message_ids: Sequence[UUID]) -> None:
        """Index messages, whatever the log says of them."""
        async with self._database.transaction() as session:
            await self.put_with(session, message_ids)

    async def again(self, client_id: UUID) -> int:
        """Index all messages of a client anew: it speaks another language now."""
        after: UUID | None = None
        done = 0
        while True:
            async with self._database.transaction() as session:
                values = {"client": client_id, "after": after, "limit": self._slice}
                ids = list((await session.execute(_OF_CLIENT, values)).scalars())
                if ids:
                    await session.execute(_PUT, {"ids": ids})
            done += len(ids)
            if len(ids) < self._slice:
                return done
            after = ids[-1]

    async def run(self, leader: Leads) -> None:
        """Follow the log until cancelled, as long as no other process does."""
        far_back_at = 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                pause_s = PAUSE_S
                try:
                    if await leader.leads():
                        is_far = loop.time() >= far_back_at
                        await self.catch_up(back_s=FAR_BACK_S if is_far else BACK_S)
                        if is_far:
                            far_back_at = loop.time() + FAR_BACK_EVERY_S
                    else:
                        pause_s = AWAY_S
                except UnavailableError:
                    pause_s = AWAY_S
                except Exception:
                    log.exception("search_not_indexed")
                    pause_s = AWAY_S
                await asyncio.sleep(pause_s)
        finally:
            await leader.resign()
