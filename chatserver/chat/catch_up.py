"""How whoever was away gets what happened: complete, or it says what is left."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg
import orjson

from chatserver.chat.errors import CursorInvalidError, EpochMismatchError, HistoryTruncatedError
from chatserver.chat.repository import ChatRepository
from chatserver.chat.schemas import (
    Events,
    JoinedRoom,
    ListEvents,
    Position,
    Replay,
    RoomRequest,
    Snapshot,
    Sync,
    Synced,
)
from chatserver.chat.since import Mark
from chatserver.chat.snapshots import SnapshotService
from chatserver.kernel.clock import rfc3339
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Written
from chatserver.rooms import policies as room_policies
from chatserver.rooms.errors import NotARoomMemberError, RoomNotFoundError
from chatserver.rooms.models import Member, Room
from chatserver.rooms.schemas import RoomOut
from chatserver.rooms.service import RoomService

# An answer above this could not be sent to a slow phone without cutting it, again and again.
ANSWER_BYTES: Final = 256 * 1024
INLINE_PER_ROOM: Final = 50
REPLAY_SLICE: Final = 100
INLINE_IN_ALL: Final = 300
ROOMS_PER_SYNC: Final = 500
# What left longer ago, or is more than this, can't be listed any more: sync without a cursor then,
# which gives all rooms that there are.
REMOVED_KEPT: Final = timedelta(days=90)
REMOVED_PER_SYNC: Final = 1000
# So long before a cursor is looked at again: transactions that were open then may have committed
# after it. Which rows those are, the cursor's horizon tells.
OVERLAP: Final = timedelta(seconds=60)


class Seal(Protocol):
    """Makes cursors that only we can make."""

    def seal(self, content: bytes, purpose: str) -> str: ...

    def open(self, text: str, purpose: str) -> bytes | None: ...


class SyncedAsRead(Written, Synced):
    """What was read, without looking at each member once more."""


class CatchUpService:
    """Reads only; each answer stops early rather than grow beyond 256 KiB."""

    def __init__(
        self,
        *,
        repository: ChatRepository,
        rooms: Open[RoomService],
        snapshots: Open[SnapshotService],
        seal: Seal,
        generation: Callable[[], int],
    ) -> None:
        self._repository = repository
        self._rooms = rooms
        self._snapshots = snapshots
        self._seal = seal
        self._generation = generation

    async def replay(self, principal: Principal, command: Replay) -> Events:
        """Give facts after a seq.

        Raises:
            EpochMismatchError: another log than the caller's, or the caller is ahead of it.
            HistoryTruncatedError: what follows `after_seq` is gone, or not the caller's to read.
        """
        async with self._rooms() as rooms:
            room, me = await rooms.visible(principal, command.room_id)
        self._check(room, me, command.epoch, command.after_seq)
        return await self._events(room, command.after_seq, command.limit)

    async def events(self, principal: Principal, command: ListEvents) -> Events:
        """Give a room's log over REST; without a position it begins where the caller may read."""
        async with self._rooms() as rooms:
            room, me = await rooms.visible(principal, command.room_id)
        floor = room_policies.floor(room, me)
        after = max(command.after_seq, floor - 1) if command.after_seq == 0 else command.after_seq
        self._check(room, me, None, after)
        return await self._events(room, after, command.limit)

    async def snapshot(self, principal: Principal, command: RoomRequest) -> Snapshot:
        """Give a room's state as of one seq."""
        async with self._snapshots() as snapshots:
            return await snapshots.of(principal, command)

    async def sync(self, principal: Principal, command: Sync) -> Synced:
        """Say what changed since the cursor, and give what is missing where that is little.

        Raises:
            CursorInvalidError: not this caller's cursor, or too old to tell what was left since.
        """
        since, after, began = self._read_cursor(principal, command.cursor)
        named = command.rooms
        now, rows = await self._repository.changed_rooms(
            principal.user_id,
            since=since,
            overlap=OVERLAP,
            after=after,
            named=list(named),
            limit=ROOMS_PER_SYNC + len(named) + 1,
        )
        if since is not None and now.at - since.at > REMOVED_KEPT:
            raise CursorInvalidError
        # Each change of the set of rooms is counted. Without one, whoever only read in a room that
        # he came into a moment ago has not come into it once more.
        moved = since is not None and since.version != now.version
        more = len([row for row in rows if row["r_id"] not in named]) > ROOMS_PER_SYNC
        if more:
            rows = rows[: ROOMS_PER_SYNC + len(named)]
        answers = _Answers()
        rooms: dict[str, dict[str, Any]] = {}
        joined: list[asyncpg.Record] = []
        for row in rows:
            position = named.get(row["r_id"])
            told = row["reads"]
            if told is not None and not answers.fit(len(told)):
                told = None
            rooms[str(row["r_id"])] = await self._room(row, position, answers, told)
            if moved and row["has_joined"]:
                joined.append(row)
        for room_id, position in named.items():
            if str(room_id) not in rooms:
                rooms[str(room_id)] = await self._stranger(principal, room_id, position, answers)
        last = rows[-1]["r_id"] if more else None
        said = {
            "cursor": self._write_cursor(
                principal, since if more else (began or now), last, began or now
            ),
            "rooms_version": now.version,
            "rooms": rooms,
            "joined": await self._joined(joined),
            "removed": [] if since is None else await self._removed(principal, since),
        }
        if more:
            said["more"] = True
        return SyncedAsRead.of(orjson.dumps(said))

    async def _removed(self, principal: Principal, since: Mark) -> list[dict[str, Any]]:
        """Say what was left since, as `Removed` has it."""
        gone = await self._repository.removed(
            principal.user_id, since, overlap=OVERLAP, limit=REMOVED_PER_SYNC + 1
        )
        if len(gone) > REMOVED_PER_SYNC:
            raise CursorInvalidError
        return [
            {"room_id": str(row["room_id"]), "reason": row["reason"], "at": rfc3339(row["at"])}
            for row in gone
        ]

    async def _room(
        self,
        row: asyncpg.Record,
        position: Position | None,
        answers: "_Answers",
        reads: str | None,
    ) -> dict[str, Any]:
        """Say where a room stands, as `SyncedRoom` has it."""
        generation = self._generation()
        members: dict[str, Any] = {
            "epoch": f"{generation}.{row['r_epoch']}",
            "last_seq": row["r_last_seq"],
            "min_seq": max(row["r_min_seq"], row["min_seq"]),
            "read_seq": row["read_seq"],
            "unread": max(0, row["r_msg_no"] - row["read_msg_no"]),
            "mentions": row["mentions"],
        }
        if row["marked_unread"]:
            members["marked_unread"] = True
        if reads is not None:
            members["reads"] = orjson.Fragment(reads)
        if position is None:
            return members
        if position.epoch != members["epoch"] or position.seq > members["last_seq"]:
            return members | {"error": {"code": EpochMismatchError.code}}
        if position.seq + 1 < members["min_seq"]:
            truncated = {"code": HistoryTruncatedError.code, "min_seq": members["min_seq"]}
            return members | {"error": truncated}
        return await self._missing(row["r_id"], members, position.seq, answers)

    async def _missing(
        self, room_id: UUID, members: dict[str, Any], seq: int, answers: "_Answers"
    ) -> dict[str, Any]:
        missing = members["last_seq"] - seq
        if missing == 0:
            return members | {"events": []}
        if missing > INLINE_PER_ROOM or not answers.has_room(missing):
            return members | {"behind": True}
        entries = await self._repository.entries(
            room_id, after_seq=seq, limit=INLINE_PER_ROOM, generation=self._generation()
        )
        events = [entry.members() for entry in entries]
        if not answers.take(events):
            return members | {"behind": True}
        if events:
            members["last_seq"] = max(members["last_seq"], events[-1]["seq"])
        return members | {"events": events}

    async def _stranger(
        self,
        principal: Principal,
        room_id: UUID,
        position: Position,
        answers: "_Answers",
    ) -> dict[str, Any]:
        """Answer for a room that the caller is no member of: a watched channel, or an error."""
        try:
            async with self._rooms() as rooms:
                room, me = await rooms.visible(principal, room_id)
            self._check(room, me, position.epoch, position.seq)
        except (
            RoomNotFoundError,
            NotARoomMemberError,
            EpochMismatchError,
            HistoryTruncatedError,
        ) as error:
            return {"error": {"code": error.code, **error.details}}
        members: dict[str, Any] = {
            "epoch": self._epoch(room),
            "last_seq": room.last_seq,
            "min_seq": room.min_seq,
        }
        return await self._missing(room_id, members, position.seq, answers)

    async def _joined(self, rows: list[asyncpg.Record]) -> list[orjson.Fragment]:
        """Describe rooms that the caller came into, as `JoinedRoom` has it."""
        if not rows:
            return []
        rooms = await self._repository.rooms(
            [row["r_id"] for row in rows], generation=self._generation()
        )
        described = []
        for row in rows:
            found = rooms.get(row["r_id"])
            if found is None:
                continue  # it was removed for good a moment ago
            room = RoomOut.model_construct(
                **found,
                last_seq=row["r_last_seq"],
                msg_no=row["r_msg_no"],
                me=None,
            )
            member = {
                "role": row["role"],
                "joined_at": rfc3339(row["joined_at"]),
                "min_seq": row["min_seq"],
                "read_seq": row["read_seq"],
                "is_muted": row["is_muted"],
                "is_favorite": row["is_favorite"],
                "notification_level": row["notification_level"],
            }
            shown = JoinedRoom.model_construct(room=room, member=member)
            described.append(orjson.Fragment(shown.as_json()))
        return described

    async def _events(self, room: Room, after_seq: int, limit: int) -> Events:
        events: list[dict[str, Any]] = []
        size, reached = 0, after_seq
        # In slices: what does not fit into the answer need not be read.
        while len(events) < limit and size <= ANSWER_BYTES:
            asked = min(REPLAY_SLICE, limit - len(events))
            entries = await self._repository.entries(
                room.id, after_seq=reached, limit=asked, generation=self._generation()
            )
            for entry in entries:
                members = entry.members()
                size += len(orjson.dumps(members))
                if events and size > ANSWER_BYTES:
                    break
                events.append(members)
                reached = entry.seq
            if len(entries) < asked:
                break
        last_seq = max(room.last_seq, reached)
        return Events(events=events, last_seq=last_seq, complete=reached >= last_seq)

    def _check(self, room: Room, me: Member | None, epoch: str | None, after_seq: int) -> None:
        if after_seq > room.last_seq or epoch not in {None, self._epoch(room)}:
            raise EpochMismatchError(epoch=self._epoch(room), last_seq=room.last_seq)
        floor = room_policies.floor(room, me)
        if after_seq + 1 < floor:
            raise HistoryTruncatedError(min_seq=floor)

    def _epoch(self, room: Room) -> str:
        return f"{self._generation()}.{room.epoch}"

    def _read_cursor(
        self, principal: Principal, cursor: str | None
    ) -> tuple[Mark | None, UUID | None, Mark | None]:
        """Give since when, after which room, and when the listing began."""
        if cursor is None:
            return None, None, None
        content = self._seal.open(cursor, _purpose(principal))
        if content is None:
            raise CursorInvalidError
        since, after, began, *generation = orjson.loads(content)
        # Another generation is another copy of the database, whose transactions count anew.
        same = generation == [self._generation()]
        return (
            None if since is None else _mark(since, is_same=same),
            None if after is None else UUID(after),
            None if after is None else _mark(began, is_same=same),
        )

    def _write_cursor(
        self, principal: Principal, since: Mark | None, after: UUID | None, began: Mark
    ) -> str:
        marks = [None if it is None else (it.at, it.horizon, it.version) for it in (since, began)]
        last = None if after is None else str(after)
        content = orjson.dumps([marks[0], last, marks[1], self._generation()])
        return self._seal.seal(content, _purpose(principal))


def _mark(written: list[Any] | str, *, is_same: bool) -> Mark:
    """Read a mark of a cursor; those of older cursors are a time alone."""
    if isinstance(written, str):
        return Mark(datetime.fromisoformat(written))
    at, horizon, version = written
    return Mark(datetime.fromisoformat(at), *((horizon, version) if is_same else ()))


class _Answers:
    """What is left of the room for inline events in one sync."""

    def __init__(self) -> None:
        self._events = INLINE_IN_ALL
        self._bytes = ANSWER_BYTES

    def has_room(self, events: int) -> bool:
        return events <= self._events and self._bytes > 0

    def take(self, events: list[dict[str, Any]]) -> bool:
        """Take up room for some; False where they do not fit in."""
        if not self.fit(len(orjson.dumps(events))):
            return False
        self._events -= len(events)
        return True

    def fit(self, size: int) -> bool:
        """Take up room for so many bytes; False where they do not fit in."""
        if size > self._bytes:
            return False
        self._bytes -= size
        return True


def _purpose(principal: Principal) -> str:
    return f"sync:{principal.client_id}:{principal.user_id}"
