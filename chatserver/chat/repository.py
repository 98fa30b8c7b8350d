"""Every query about messages and the log, on raw connections: no session, no transaction held."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import orjson

from chatserver.chat.events import Draft, LogEntry, Outcome, message_data
from chatserver.chat.policies import SHARED_BY, SHARED_TYPES
from chatserver.chat.rows import MESSAGE, ROOM, loaded, message_of, room_of, shaped
from chatserver.chat.schemas import MessageOut
from chatserver.chat.since import CHANGED, READS_LATELY, READS_OF, REMOVED, Mark
from chatserver.infra.batching import Batcher
from chatserver.infra.database import Database, OneSession, outages
from chatserver.kernel.events import Actor, Committed, Effect
from chatserver.realtime.ports import Changes, Seat, Subscriptions

_STORE: Final = (
    "select o_outcome, o_message_id, o_seq, o_msg_no, o_ts, o_epoch, o_woke_seq, o_later,"
    " o_thread_id, o_reply_count, o_wait_ms from chat_store("
    "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"
)
_ENTRIES: Final = f"""
select e.client_id, e.room_id, e.seq, e.id, e.type, e.created_at, e.actor_type, e.actor_id, e.data,
  e.effect, {ROOM}, {MESSAGE},
  (select t.reply_count from message t where t.id = m.thread_id) as m_thread_replies
from room_event e join room r on r.id = e.room_id
left join message m on m.id = coalesce(e.message_id, (e.data ->> 'message_id')::uuid)
where e.room_id = $1 and e.seq > $2 order by e.seq limit $3
"""  # noqa: S608 - constants of this file

_ENTRIES_AT: Final = f"""
select e.client_id, e.room_id, e.seq, e.id, e.type, e.created_at, e.actor_type, e.actor_id, e.data,
  e.effect, {ROOM}, {MESSAGE},
  (select t.reply_count from message t where t.id = m.thread_id) as m_thread_replies
from unnest($1::uuid[], $2::bigint[]) as p(room_id, seq)
join room_event e on e.room_id = p.room_id and e.seq = p.seq
join room r on r.id = e.room_id
left join message m on m.id = coalesce(e.message_id, (e.data ->> 'message_id')::uuid)
"""  # noqa: S608 - constants of this file

_SUBSCRIPTIONS: Final = """
select u.id, u.rooms_version, r.id, r.last_seq, m.joined_seq from app_user u
left join member m on m.user_id = u.id
left join room r on r.id = m.room_id and r.deleted_at is null
where u.id = any ($1)
"""
_HEADS: Final = "select id, last_seq from room where id = any($1)"
# Of so many who connect at the same time.
TOGETHER: Final = 32
_Question: TypeAlias = tuple[
    UUID, datetime | None, UUID | None, Sequence[UUID], int, datetime | None, int | None
]


class ChatRepository:
    """Messages and the log. Its reads are single statements; `chat_store` is the one write."""

    def __init__(self, database: Database | OneSession) -> None:
        self._database = database
        self._syncing = Batcher(self._changed_rooms_of, size=TOGETHER, in_flight=2)
        self._subscribing = Batcher(self._subscriptions_of, size=TOGETHER, in_flight=2)

    async def store(self, drafts: Sequence[Draft], *, wait: bool) -> list[Outcome]:
        """Store drafts by one call of `chat_store`; raw errors of asyncpg pass to the writer."""
        pool = await self._database.writing()
        rows = await pool.fetch(
            _STORE,
            [draft.client_id for draft in drafts],
            [draft.room_id for draft in drafts],
            [draft.message_id for draft in drafts],
            [draft.event_id for draft in drafts],
            [draft.wake_id for draft in drafts],
            [draft.user_id for draft in drafts],
            [draft.sender for draft in drafts],
            [draft.sender_id for draft in drafts],
            [draft.sender_key for draft in drafts],
            [draft.client_msg_id for draft in drafts],
            [draft.body_hash for draft in drafts],
            [draft.content for draft in drafts],
            [draft.reply_to for draft in drafts],
            [_json(draft.attachments) for draft in drafts],
            [_json(draft.mentions) for draft in drafts],
            [_json(draft.metadata) for draft in drafts],
            [draft.silent for draft in drafts],
            wait,
            any(draft.reply_to is not None or draft.mentions for draft in drafts),
        )
        outcomes = [Outcome(*row) for row in rows[: len(drafts)]]
        if len(rows) == len(drafts):
            return outcomes
        replies = {row["o_thread_id"]: row["o_reply_count"] for row in rows[len(drafts) :]}
        return [replace(each, reply_count=replies.get(each.thread_id)) for each in outcomes]

    async def entries(
        self, room_id: UUID, *, after_seq: int, limit: int, generation: int
    ) -> list[LogEntry]:
        """Read the log of a room after a seq, in order; messages and the room as they are now."""
        rows = await self._fetch(_ENTRIES, room_id, after_seq, limit)
        return [_entry(row, generation) for row in rows]

    async def entries_at(
        self, places: Sequence[tuple[UUID, int]], *, generation: int
    ) -> list[LogEntry]:
        """Read the log at some places (room, seq), as it is now; what is gone is left out."""
        rows = await self._fetch(
            _ENTRIES_AT, [room for room, _ in places], [seq for _, seq in places]
        )
        return [_entry(row, generation) for row in rows]

    async def rooms(self, room_ids: Sequence[UUID], *, generation: int) -> dict[UUID, Any]:
        """Read rooms as they are now, deleted ones too, as `room.*` facts carry them."""
        rows = await self._fetch(
            f"select {ROOM} from room r where r.id = any ($1)",  # noqa: S608 - constants
            list(room_ids),
        )
        return {row["r_id"]: room_of(row, generation) for row in rows}

    async def message(self, client_id: UUID, message_id: UUID) -> dict[str, Any] | None:
        """Read one message, with its context."""
        rows = await self._fetch(
            f"select {MESSAGE} from message m where m.client_id = $1 and m.id = $2",  # noqa: S608
            client_id,
            message_id,
        )
        return message_of(rows[0], with_context=True) if rows else None

    async def sent_before(self, draft: Draft) -> dict[str, Any] | None:
        """Read the message that a draft would repeat; None when it would be another one."""
        rows = await self._fetch(
            f"select {MESSAGE} from message m where m.room_id = $1 and m.sender_key = $2"  # noqa: S608
            " and m.client_msg_id = $3 and m.client_id = $4 and m.body_hash = $5",
            *(draft.room_id, draft.sender_key, draft.client_msg_id),
            *(draft.client_id, draft.body_hash),
        )
        return message_of(rows[0], with_context=True) if rows else None

    async def messages(
        self, room_id: UUID, *, floor: int, after: int | None, before: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Read messages in seq order: after a seq the next ones, before it (or at all) the last."""
        return await self._page(
            "m.room_id = $1 and m.seq > 0",
            room_id,
            (floor, after, before, limit),
            after is not None,
        )

    async def thread(
        self, thread_id: UUID, *, floor: int, after: int | None, before: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Read the replies below a message, in seq order; without a position the first ones."""
        return await self._page(
            "m.thread_id = $1", thread_id, (floor, after, before, limit), before is None
        )

    async def _page(
        self,
        where: str,
        of: UUID,
        place: tuple[int, int | None, int | None, int],
        forward: bool,  # noqa: FBT001 - said by both callers right above
    ) -> list[dict[str, Any]]:
        floor, after, before, limit = place
        rows = await self._fetch(
            f"select {MESSAGE} from message m where {where}"  # noqa: S608
            " and m.seq >= $2 and m.seq > $3 and m.seq < $4"
            f" order by m.seq {'asc' if forward else 'desc'} limit $5",
            *(of, floor, after or 0, 2**62 if before is None else before, limit),
        )
        found = [message_of(row, with_context=True) for row in rows]
        return found if forward else found[::-1]

    async def pins(self, room_id: UUID, *, floor: int) -> list[dict[str, Any]]:
        """Read a room's pinned messages, in the order in which they were pinned."""
        rows = await self._fetch(
            f"select {MESSAGE} from message m where m.room_id = $1 and m.pinned"  # noqa: S608
            " and m.seq >= $2 order by m.pinned_at, m.seq",
            room_id,
            floor,
        )
        return [message_of(row, with_context=True) for row in rows]

    async def shown(self, user_id: UUID | None, found: list[dict[str, Any]]) -> list[MessageOut]:
        """Shape messages for whoever looks at them: a user's own reactions are marked."""
        reacted = [UUID(members["id"]) for members in found if members["reactions"]]
        if reacted and user_id is not None:
            rows = await self._fetch(
                "select message_id::text, emoji from reaction"
                " where user_id = $1 and message_id = any ($2)",
                user_id,
                reacted,
            )
            own = {(row[0], row[1]) for row in rows}
            for members in found:
                for each in members["reactions"]:
                    each["me"] = (members["id"], each["emoji"]) in own
        return [shaped(members) for members in found]

    async def changed_rooms(
        self,
        user_id: UUID,
        *,
        since: Mark | None,
        overlap: timedelta,
        after: UUID | None,
        named: Sequence[UUID],
        limit: int,
    ) -> tuple[Mark, list[asyncpg.Record]]:
        """Read a user's rooms with facts or changes since a mark, and whichever are named.

        Gives the mark of this moment, too. `overlap` is how long a transaction may have been open.
        """
        before = None if since is None else since.at - overlap
        at, horizon = (None, None) if since is None else (since.at, since.horizon)
        # The user's own row comes in any case, with or without a room.
        rows = await self._syncing.ask((user_id, before, after, named, limit, at, horizon))
        found = [row for row in rows if row["r_id"] is not None]
        now = Mark(rows[0]["now"], rows[0]["horizon"], rows[0]["rooms_version"])
        return now, found

    async def _changed_rooms_of(self, asked: Sequence[_Question]) -> list[list[asyncpg.Record]]:
        rows = await self._fetch(
            CHANGED,
            *([each[part] for each in asked] for part in range(3)),
            [f"{{{','.join(map(str, each[3]))}}}" for each in asked],
            [each[4] for each in asked],
            *(READS_OF, SHARED_BY, list(SHARED_TYPES)),
            *([each[part] for each in asked] for part in (5, 6)),
            READS_LATELY,
            arriving=True,
        )
        found: list[list[asyncpg.Record]] = [[] for _ in asked]
        for row in rows:
            found[row["ord"] - 1].append(row)
        return found

    async def removed(
        self, user_id: UUID, since: Mark, *, overlap: timedelta, limit: int
    ) -> list[asyncpg.Record]:
        return await self._fetch(
            REMOVED, user_id, since.at - overlap, since.at, since.horizon, limit
        )

    async def heads(self, room_ids: Sequence[UUID]) -> dict[UUID, int]:
        rows = await self._fetch(_HEADS, list(room_ids), arriving=True)
        return {row[0]: row[1] for row in rows}

    async def subscriptions(self, user_id: UUID) -> Subscriptions:
        """Read a user's rooms and their version, in one statement: one snapshot."""
        return await self._subscribing.ask(user_id)

    async def _subscriptions_of(self, users: Sequence[UUID]) -> list[Subscriptions]:
        found = {user_id: Subscriptions(0) for user_id in users}
        for user_id, version, room_id, last_seq, joined_seq in await self._fetch(
            _SUBSCRIPTIONS, list(found), arriving=True
        ):
            known = found[user_id]
            if known.version != version:
                known = found[user_id] = Subscriptions(version, known.rooms)
            if room_id is not None:
                known.rooms[room_id] = Seat(last_seq, joined_seq)
        return [found[user_id] for user_id in users]

    async def changes(self, within_s: float) -> Changes:
        """Read which rooms have new facts and whose set of rooms changed, lately."""
        rooms = await self._fetch(
            # Not `clock_timestamp()`: what changes from row to row can't be looked up in an index.
            "select room_id, max(seq) from room_event where created_at >"
            " statement_timestamp() - make_interval(secs => $1) group by room_id",
            within_s,
        )
        users = await self._fetch(
            "select id, rooms_version from app_user"
            " where rooms_changed_at > statement_timestamp() - make_interval(secs => $1)",
            within_s,
        )
        return Changes({row[0]: row[1] for row in rooms}, {row[0]: row[1] for row in users})

    async def _fetch(
        self, statement: str, *values: object, arriving: bool = False
    ) -> list[asyncpg.Record]:
        with outages():
            pool = await (self._database.arriving() if arriving else self._database.fast())
            return list(await pool.fetch(statement, *values))


class ChatLog:
    """The log as the realtime engine needs it: whole facts, whoever's they are."""

    def __init__(self, repository: ChatRepository, generation: Callable[[], int]) -> None:
        self._repository = repository
        self._generation = generation

    async def read(self, room_id: UUID, *, after_seq: int, limit: int) -> list[Committed]:
        entries = await self._repository.entries(
            room_id, after_seq=after_seq, limit=limit, generation=self._generation()
        )
        return [entry.committed() for entry in entries]

    async def facts_at(
        self, places: Sequence[tuple[UUID, int]]
    ) -> dict[tuple[UUID, int], dict[str, Any]]:
        """Read facts at some places of rooms' logs (room, seq), as they are now."""
        entries = await self._repository.entries_at(places, generation=self._generation())
        return {(entry.room_id, entry.seq): entry.members() for entry in entries}

    async def rooms(self, room_ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
        """Read rooms as they are now, as `room.*` facts carry them."""
        return await self._repository.rooms(room_ids, generation=self._generation())

    async def heads(self, room_ids: Sequence[UUID]) -> dict[UUID, int]:
        return await self._repository.heads(room_ids)

    async def subscriptions(self, user_id: UUID) -> Subscriptions:
        return await self._repository.subscriptions(user_id)

    async def changes(self, *, within_s: float) -> Changes:
        return await self._repository.changes(within_s)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _entry(row: asyncpg.Record, generation: int) -> LogEntry:
    superseded = False
    data = loaded(row["data"])
    if data is not None:
        if row["type"] == "reaction.changed":
            reactions = loaded(row["m_reactions"]) or []
            data["counts"] = {each["emoji"]: each["count"] for each in reactions}
    elif row["m_id"] is not None:
        is_new = row["type"] == "message.created"
        data = message_data(message_of(row), row["m_thread_replies"] if is_new else None)
        # Erasure leaves a tombstone without a fact of the message's own.
        erased = row["m_deleted_at"] is not None and row["type"] != "message.deleted"
        superseded = erased or row["m_changed_seq"] > row["seq"]
    else:
        data = {"room": room_of(row, generation)}
    return LogEntry(
        client_id=row["client_id"],
        room_id=row["room_id"],
        epoch=f"{generation}.{row['r_epoch']}",
        seq=row["seq"],
        id=row["id"],
        type=row["type"],
        ts=row["created_at"],
        actor=Actor(row["actor_type"], row["actor_id"]),
        data=data,
        effect=Effect.from_json(loaded(row["effect"])),
        client_msg_id=row["m_client_msg_id"] if row["type"] == "message.created" else None,
        superseded=superseded,
    )
