"""Lines taken in: with their ids, their places, their times, and nothing that follows from them."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID, uuid5

from chatserver.infra.staging import Staging
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.ids import uuid7
from chatserver.kernel.opening import Open
from chatserver.transfer import policies
from chatserver.transfer.contents import FileTaker, Keep, Progress, SortedFiles
from chatserver.transfer.errors import LineConflictError
from chatserver.transfer.repository import ImportRepository
from chatserver.transfer.schemas import (
    BanLine,
    Counted,
    EditLine,
    EventLine,
    LineIn,
    MemberLine,
    MessageLine,
    ReactionLine,
    RoomLine,
    UserLine,
)

CHUNK: Final = 500
LONGEST_ID: Final = 64
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SYSTEM: Final = re.compile(r"system:[A-Za-z0-9._:-]{1,150}")
# Makes messages findable, in the transaction that they come in with.
Index: TypeAlias = Callable[[UnitOfWork, list[UUID]], Awaitable[None]]
Row: TypeAlias = dict[str, Any]
# What of a room's line becomes a column of another name, or none.
_RENAMED: Final = {"type", "id", "room_type", "external_id", "metadata"}


@dataclass(slots=True)
class _Target:
    """The room that lines go into; `is_read`: somebody may know its log already."""

    id: UUID
    is_read: bool


class Import:
    """Takes lines in; what is there already is passed by, so that it may be done again."""

    def __init__(
        self, open_work: Open[UnitOfWork], client_id: UUID, *, index: Index, keep: Keep
    ) -> None:
        self._open_work = open_work
        self._client_id = client_id
        self._index = index
        self.counted = Counted()
        self._files = FileTaker(keep, self.counted)

    def stage(self, staging: Staging, lines: Iterable[bytes], progress: Progress) -> int:
        """Read a file and check it; nothing is stored before all of it is right. Counts lines.

        Raises:
            LineInvalidError: with the number of the first line that can't be taken.
        """
        staged = 0
        for number, raw in enumerate(lines, start=1):
            progress(len(raw))
            if not raw.strip():
                continue
            line = policies.parsed(number, raw)
            if line is not None:
                staging.add(policies.placed(number, raw, line))
                staged += 1
        staging.seal()
        return staged

    async def apply(self, staging: Staging, progress: Progress) -> Counted:
        """Store what is staged, room by room, in short transactions.

        Raises:
            LineConflictError: something else has an id or a place; what came before is stored.
        """
        for chunk in staging.chunks("", policies.USERS, CHUNK):
            async with self._open_work() as work:
                users = [_as(UserLine, raw) for _, raw in chunk]
                rows = [
                    user.model_dump(exclude={"type", "metadata"}) | {"details": user.metadata}
                    for user in users
                ]
                made = await self._tables(work).users(rows)
            self.counted.users += made
            self.counted.known += len(chunk) - made
            progress(len(chunk))
        # Before the messages that carry them.
        with closing(staging.lines("", policies.FILE)) as files:
            await self._files.take(SortedFiles(files), progress)
        for group in staging.groups():
            if group:
                await self._room(staging, group, progress)
        return self.counted

    async def _room(self, staging: Staging, group: str, progress: Progress) -> None:
        described = [
            (number, _as(RoomLine, raw)) for number, raw in staging.lines(group, policies.ROOM)
        ]
        number, line = described[0] if described else (0, RoomLine(type="room", id=group))
        target = await self._target(number, line)
        progress(len(described))
        for kind, apply in (
            (policies.MESSAGE, self._messages),
            (policies.EVENT, self._events),
            (policies.REACTION, self._reactions),
            (policies.EDIT, self._edits),
            (policies.BAN, self._bans),
        ):
            for chunk in staging.chunks(group, kind, CHUNK):
                await apply(target, chunk)
                progress(len(chunk))
        await self._fill(target)
        # Last, since whoever has no pointer of his own has read it all.
        for chunk in staging.chunks(group, policies.MEMBER, CHUNK):
            await self._members(target, chunk)
            progress(len(chunk))

    async def _target(self, number: int, line: RoomLine) -> _Target:
        async with self._open_work() as work:
            tables = self._tables(work)
            name = line.external_id
            is_ours = _UUID.fullmatch(line.id) is not None
            if name is None and not is_ours and policies.EXTERNAL.fullmatch(line.id):
                name = line.id
            room_id = UUID(line.id) if is_ours else uuid5(self._client_id, f"room:{line.id}")
            known = await tables.lock(room_id)
            if known is None and name is not None:
                called = await tables.room_called(name)
                known = None if called is None else await tables.lock(called)
            if known is not None:
                if known["client_id"] != self._client_id or known["is_deleted"]:
                    raise LineConflictError.at(number, "another room has this id")
                self.counted.known += 1
                return _Target(known["id"], is_read=known["last_seq"] > 0)
            await tables.add_room(
                {
                    "id": room_id,
                    "type": line.room_type,
                    "external_id": name,
                    "details": line.metadata,
                    **line.model_dump(exclude=_RENAMED),
                }
            )
            self.counted.rooms += 1
            return _Target(room_id, is_read=False)

    async def _messages(self, target: _Target, chunk: list[tuple[int, bytes]]) -> None:
        lines = [(number, _as(MessageLine, raw), raw) for number, raw in chunk]
        async with self._open_work() as work:
            tables = self._tables(work)
            room = await tables.lock(target.id)
            assert room is not None  # noqa: S101 - it was there, and nobody deletes it for good now
            names = {it.sender_id for _, it, _ in lines if it.sender == "user" and it.sender_id}
            people = await tables.user_ids(sorted(names))
            rows = [self._message(target, it, raw, people) for _, it, raw in lines]
            fresh = await self._fresh(tables, target, lines, rows)
            new = {row["id"] for _, row in fresh}
            # They were here before a file that they carry.
            late = [
                row["id"] for row in rows if row["id"] not in new and self._files.are_carried(row)
            ]
            if late:
                await tables.carry(late)
            if not fresh:
                return
            last_seq, msg_no = room["last_seq"], room["msg_no"]
            for _, row in fresh:
                if row["seq"] is None:
                    row["seq"] = last_seq + 1
                last_seq = max(last_seq, row["seq"])
                if row["msg_no"] is None:
                    row["msg_no"] = msg_no + (0 if row["silent"] else 1)
                msg_no = max(msg_no, row["msg_no"])
            await self._refuse_taken(tables, target, fresh)
            rows = [row for _, row in fresh]
            await tables.messages(target.id, rows)
            await tables.events(target.id, [_created(row) for row in rows])
            await self._index(work, [row["id"] for row in rows])
            latest = max(row["created_at"] for row in rows)
            await self._moved(tables, target, last_seq=last_seq, msg_no=msg_no, at=latest)
            self.counted.messages += len(rows)

    async def _fresh(
        self,
        tables: ImportRepository,
        target: _Target,
        lines: list[tuple[int, MessageLine, bytes]],
        rows: list[Row],
    ) -> list[tuple[int, Row]]:
        """Leave out what is there already, also what stands twice in the file."""
        known = await tables.known([row["id"] for row in rows])
        keys = await tables.known_keys(
            target.id, [(row["sender_key"], row["client_msg_id"]) for row in rows]
        )
        fresh: list[tuple[int, Row]] = []
        for (number, _, _), row in zip(lines, rows, strict=True):
            place = known.get(row["id"])
            if place is not None and place != (self._client_id, target.id):
                raise LineConflictError.at(number, "another message has this id")
            key = (row["sender_key"], row["client_msg_id"])
            if place is not None or key in keys:
                self.counted.known += 1
                continue
            keys.add(key)
            known[row["id"]] = (self._client_id, target.id)
            fresh.append((number, row))
        return fresh

    async def _refuse_taken(
        self, tables: ImportRepository, target: _Target, fresh: list[tuple[int, Row]]
    ) -> None:
        taken: dict[int, object] = dict(
            await tables.taken(target.id, [row["seq"] for _, row in fresh])
        )
        for number, row in fresh:
            if row["seq"] in taken:
                raise LineConflictError.at(number, f"seq {row['seq']} of the room is taken")
            taken[row["seq"]] = row["id"]

    def _message(
        self, target: _Target, line: MessageLine, raw: bytes, people: dict[str, UUID]
    ) -> Row:
        message_id = self._id(target, line.id)
        client_msg_id = line.client_msg_id
        if client_msg_id is None:
            # Where nothing else names it, the line names itself: the same line is the same message.
            client_msg_id = line.id or f"import-{hashlib.sha256(raw.strip()).hexdigest()[:32]}"
            if len(client_msg_id) > LONGEST_ID:
                client_msg_id = hashlib.sha256(client_msg_id.encode()).hexdigest()
        message_id = message_id or uuid5(target.id, f"client_msg_id:{client_msg_id}")
        sender_key = "system:import"
        if line.sender == "user":
            sender_key = str(people[line.sender_id]) if line.sender_id else "erased"
        elif line.sender == "ai" and line.sender_id:
            sender_key = line.sender_id
        elif line.origin is not None and _SYSTEM.fullmatch(line.origin):
            sender_key = line.origin
        row = line.model_dump(exclude={"type", "room_id", "metadata", "origin"})
        return row | {
            "id": message_id,
            "event_id": self._id(target, line.event_id) or uuid5(message_id, "message.created"),
            "client_msg_id": client_msg_id,
            "sender_key": sender_key,
            "reply_to": self._id(target, line.reply_to),
            "thread_id": self._id(target, line.thread_id),
            "details": line.metadata,
        }

    async def _events(self, target: _Target, chunk: list[tuple[int, bytes]]) -> None:
        async with self._open_work() as work:
            tables = self._tables(work)
            room = await tables.lock(target.id)
            assert room is not None  # noqa: S101 - see above
            lines = [(number, _as(EventLine, raw)) for number, raw in chunk]
            taken = await tables.taken(target.id, [line.seq for _, line in lines])
            rows: list[Row] = []
            for number, line in lines:
                event_id = self._id(target, line.id)
                if line.seq in taken:
                    if taken[line.seq] != event_id:
                        raise LineConflictError.at(number, f"seq {line.seq} of the room is taken")
                    self.counted.known += 1
                    continue
                assert event_id is not None  # noqa: S101 - a line has one
                taken[line.seq] = event_id
                row = line.model_dump(exclude={"type", "room_id", "event"})
                message_id = self._id(target, line.message_id)
                rows.append(row | {"id": event_id, "type": line.event, "message_id": message_id})
            if rows:
                await tables.events(target.id, rows)
                last_seq = max(row["seq"] for row in rows)
                await self._moved(tables, target, last_seq=last_seq, msg_no=0, at=None)
                self.counted.events += len(rows)

    async def _reactions(self, target: _Target, chunk: list[tuple[int, bytes]]) -> None:
        async with self._open_work() as work:
            tables = self._tables(work)
            lines = [_as(ReactionLine, raw) for _, raw in chunk]
            await tables.user_ids(sorted({line.user_id for line in lines}))
            rows = [
                line.model_dump(include={"user_id", "emoji", "created_at"})
                | {"message_id": self._id(target, line.message_id)}
                for line in lines
            ]
            made = await tables.reactions(target.id, rows)
        self.counted.reactions += made
        self.counted.known += len(chunk) - made

    async def _edits(self, target: _Target, chunk: list[tuple[int, bytes]]) -> None:
        rows = []
        for _, raw in chunk:
            line = _as(EditLine, raw)
            message_id = self._id(target, line.message_id)
            rows.append(line.model_dump(exclude={"type", "room_id"}) | {"message_id": message_id})
        async with self._open_work() as work:
            made = await self._tables(work).edits(target.id, rows)
        self.counted.edits += made
        self.counted.known += len(chunk) - made

    async def _bans(self, target: _Target, chunk: list[tuple[int, bytes]]) -> None:
        async with self._open_work() as work:
            tables = self._tables(work)
            made = await tables.bans(target.id, await _named(tables, BanLine, chunk))
        self.counted.bans += made
        self.counted.known += len(chunk) - made

    async def _members(self, target: _Target, chunk: list[tuple[int, bytes]]) -> None:
        async with self._open_work() as work:
            tables = self._tables(work)
            await tables.lock(target.id)
            made = await tables.members(target.id, await _named(tables, MemberLine, chunk))
        self.counted.members += made
        self.counted.known += len(chunk) - made

    async def _fill(self, target: _Target) -> None:
        """Close the holes of a log that came without all of its facts: it must have none."""
        while True:
            async with self._open_work() as work:
                tables = self._tables(work)
                await tables.lock(target.id)
                holes = await tables.holes(target.id, CHUNK)
                rows = [
                    {
                        "seq": seq,
                        "id": uuid7(),
                        # It refers to the room as it is, and so says nothing wrong.
                        "type": "room.updated",
                        "actor_type": "system",
                        "actor_id": None,
                        "message_id": None,
                        "data": None,
                        "created_at": at or datetime.fromtimestamp(0).astimezone(),
                    }
                    for seq, at in holes
                ]
                if rows:
                    await tables.events(target.id, rows)
            if len(holes) < CHUNK:
                return

    async def _moved(
        self, tables: ImportRepository, target: _Target, *, last_seq: int, msg_no: int, at: object
    ) -> None:
        await tables.move(target.id, last_seq=last_seq, msg_no=msg_no, at=at, raised=target.is_read)
        # Once is enough to make everybody load it anew.
        target.is_read = False

    def _id(self, target: _Target, given: str | None) -> UUID | None:
        """Keep an id of ours; another system's becomes one that is always the same."""
        if given is None:
            return None
        return UUID(given) if _UUID.fullmatch(given) else uuid5(target.id, f"id:{given}")

    def _tables(self, work: UnitOfWork) -> ImportRepository:
        return ImportRepository(work.session, self._client_id)


Model = TypeVar("Model", bound=LineIn)


def _as(model: type[Model], raw: bytes) -> Model:
    return model.model_validate_json(raw)


Named: TypeAlias = type[BanLine] | type[MemberLine]


async def _named(
    tables: ImportRepository, model: Named, chunk: list[tuple[int, bytes]]
) -> list[Row]:
    """Read lines that name somebody, and make whoever is unknown."""
    lines = [_as(model, raw) for _, raw in chunk]
    await tables.user_ids(sorted({line.user_id for line in lines}))
    return [line.model_dump(exclude={"type", "room_id"}) for line in lines]


def _created(row: Row) -> Row:
    return {
        "seq": row["seq"],
        "id": row["event_id"],
        "type": "message.created",
        "actor_type": "bot" if row["sender"] == "ai" else row["sender"],
        "actor_id": row["sender_id"],
        "message_id": row["id"],
        "data": None,
        "created_at": row["created_at"],
    }
