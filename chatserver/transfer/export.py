"""A client's conversations as lines, read page by page while they are written."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias
from uuid import UUID

import orjson

from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from chatserver.transfer.pages import ExportRepository
from chatserver.transfer.schemas import VERSION

PAGE: Final = 500

Row: TypeAlias = dict[str, Any]
# The pieces of a file, by its id.
Contents: TypeAlias = Callable[[UUID], AsyncIterator[bytes]]


class Export:
    """Reads page by page: what is sent meanwhile is not in it, what is there is whole.

    `contents` gives the pieces of a file, none where the store has none; without it an export has
    no contents.
    """

    def __init__(
        self, open_work: Open[UnitOfWork], client_id: UUID, *, contents: Contents | None = None
    ) -> None:
        self._open_work = open_work
        self._client_id = client_id
        self._contents = contents

    async def total(self) -> int:
        """Count the facts that will be written, for whoever shows how far it is."""
        async with self._open_work() as work:
            return await ExportRepository(work.session, self._client_id).total()

    async def lines(self, slug: str) -> AsyncIterator[bytes]:
        yield _line("export", {"version": VERSION, "client": slug})
        async for user in self._paged(
            lambda pages, after: pages.users(after, PAGE), lambda row: row.pop("id")
        ):
            yield _line("user", user)
        async for file in self._paged(
            lambda pages, after: pages.files(after, PAGE), lambda row: row["id"]
        ):
            file["sha256"] = base64.b64encode(file["sha256"]).decode()
            yield _line("file", file)
            if self._contents is not None:
                part = 0
                async for piece in self._contents(file["id"]):
                    part += 1
                    data = base64.b64encode(piece).decode()
                    yield _line("file_part", {"file_id": file["id"], "part": part, "data": data})
        async for room in self._paged(
            lambda pages, after: pages.rooms(after, PAGE), lambda row: row["id"]
        ):
            last_seq: int = room.pop("last_seq")
            yield _line("room", room)
            async for line in self._room(room["id"], last_seq):
                yield line

    async def _room(self, room_id: UUID, last_seq: int) -> AsyncIterator[bytes]:
        async for line in self._messages(room_id, last_seq):
            yield line
        after = 0
        while True:
            async with self._open_work() as work:
                pages = ExportRepository(work.session, self._client_id)
                events = await pages.events(room_id, after, last_seq, PAGE)
            for event in events:
                yield _line("event", event)
            if len(events) < PAGE:
                break
            after = events[-1]["seq"]
        async for member in self._paged(
            lambda pages, after: pages.members(room_id, after, PAGE), lambda row: row.pop("id")
        ):
            yield _line("member", member)
        async for ban in self._paged(
            lambda pages, after: pages.bans(room_id, after, PAGE), lambda row: row.pop("id")
        ):
            yield _line("ban", ban)

    async def _messages(self, room_id: UUID, last_seq: int) -> AsyncIterator[bytes]:
        """Write a room's messages, page by page, with what belongs to those of a page."""
        after = 0
        while True:
            async with self._open_work() as work:
                pages = ExportRepository(work.session, self._client_id)
                messages = await pages.messages(room_id, after, last_seq, PAGE)
                reactions = await pages.reactions(room_id, after, last_seq, PAGE)
                edits = await pages.edits(room_id, after, last_seq, PAGE)
            for message in messages:
                yield _line("message", message)
            for kind, rows in (("reaction", reactions), ("edit", edits)):
                for row in rows:
                    row.pop("seq")
                    yield _line(kind, row)
            if len(messages) < PAGE:
                return
            after = messages[-1]["seq"]

    async def _paged(
        self,
        read: Callable[[ExportRepository, UUID | None], Awaitable[list[Row]]],
        key: Callable[[Row], UUID],
    ) -> AsyncIterator[Row]:
        after: UUID | None = None
        while True:
            async with self._open_work() as work:
                page = await read(ExportRepository(work.session, self._client_id), after)
            for row in page:
                after = key(row)
                yield row
            if len(page) < PAGE:
                return


def _line(kind: str, members: Row) -> bytes:
    line = {"type": kind, **members}
    return orjson.dumps(line, default=_plain, option=orjson.OPT_UTC_Z) + b"\n"


def _plain(value: object) -> str:
    # asyncpg's ids are a subclass of UUID, which orjson does not take for one.
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value).__name__)
