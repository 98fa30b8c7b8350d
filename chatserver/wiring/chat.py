"""How the conversation is built."""

import asyncio
from collections.abc import Callable, Mapping
from uuid import UUID

import structlog

from chatserver.chat.catch_up import CatchUpService
from chatserver.chat.changes import ChangeService
from chatserver.chat.messages import MessageRepository
from chatserver.chat.pointers import PointerRepository
from chatserver.chat.policies import Screen
from chatserver.chat.reads import ReadNotices, ReadService
from chatserver.chat.repository import ChatLog, ChatRepository
from chatserver.chat.service import Announcer, Attachments, ChatService
from chatserver.chat.snapshots import SnapshotService
from chatserver.chat.traces import TraceService
from chatserver.chat.writer import MessageWriter
from chatserver.infra import outbox
from chatserver.infra.cursors import CursorSeal
from chatserver.infra.database import OneSession, outages
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.opening import Open
from chatserver.rooms.members import MemberService
from chatserver.rooms.ports import People
from chatserver.rooms.service import RoomService
from chatserver.wiring.core import Core

log = structlog.get_logger(__name__)


class Conversation:
    """Messages and all that happens to them. `rooms` and `members` build within a transaction."""

    def __init__(
        self,
        core: Core,
        *,
        rooms: Callable[[UnitOfWork], RoomService],
        members: Callable[[UnitOfWork], MemberService],
        people: Open[People],
        attachments: Attachments | None = None,
        screen: Screen | None = None,
    ) -> None:
        self._rooms = rooms
        self._screen = screen
        self._members = members
        self._limits = core.settings.limits
        self.messages = ChatRepository(core.database)
        self.log = ChatLog(self.messages, core.generation)
        self.pointers = PointerRepository(core.database)
        self.writer = MessageWriter(
            self.messages,
            Announcer(
                self.messages,
                publish=core.publish,
                generation=core.generation,
                ring=core.ring_outbox,
            ),
        )
        self._database = core.database
        self._carrying: set[asyncio.Task[None]] = set()
        self.writer.carry = self._carry
        open_rooms = core.open(rooms)
        self.chat = ChatService(
            writer=self.writer,
            repository=self.messages,
            rooms=open_rooms,
            people=people,
            attachments=attachments,
            screen=screen,
            characters=self._limits.text_characters,
            octets=self._limits.text_bytes,
        )
        self.catch_up = CatchUpService(
            repository=self.messages,
            rooms=open_rooms,
            snapshots=core.open(self._snapshots),
            seal=CursorSeal(core.box),
            generation=core.generation,
        )
        self.open_changes = core.open(self._changes)
        self.notices = ReadNotices(core.publish, utc_now)
        self.reads = ReadService(
            pointers=self.pointers,
            rooms=open_rooms,
            publish=core.publish,
            notices=self.notices,
            generation=core.generation,
            clock=utc_now,
        )

        self.traces = TraceService(chat=self.chat, pointers=self.pointers)

    async def stop(self) -> None:
        """Store what waits, and tell nobody any more."""
        await self.writer.close()
        await self.notices.stop()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _carry(self, traces: Mapping[UUID, str]) -> None:
        """Have outbox rows of sends carry their traces on, beside the sends."""
        task = asyncio.get_running_loop().create_task(self._carry_on(traces))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry_on(self, traces: Mapping[UUID, str]) -> None:
        try:
            with outages():
                await outbox.carry(await self._database.writing(), traces)
        except UnavailableError:
            log.info("traces_not_carried", count=len(traces))

    def _changes(self, work: UnitOfWork) -> ChangeService:
        return ChangeService(
            messages=MessageRepository(work.session),
            rooms=self._rooms(work),
            recorder=work,
            characters=self._limits.text_characters,
            octets=self._limits.text_bytes,
            screen=self._screen,
        )

    def _snapshots(self, work: UnitOfWork) -> SnapshotService:
        held = OneSession(work.session)
        return SnapshotService(
            freeze=held.freeze,
            repository=ChatRepository(held),
            pointers=PointerRepository(held),
            rooms=self._rooms(work),
            members=self._members(work),
        )
