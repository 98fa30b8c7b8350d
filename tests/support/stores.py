"""A `chat_store` in memory: numbers drafts as PostgreSQL would, and fails on demand."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from chatserver.chat.events import Draft, Outcome
from chatserver.kernel.ids import uuid7

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CLIENT = uuid7()


def draft(
    room: UUID,
    client_msg_id: str,
    *,
    sender: str = "alice",
    client: UUID = CLIENT,
    content: str = "hello",
) -> Draft:
    return Draft(
        client_id=client,
        room_id=room,
        user_id=uuid7(),
        sender="user",
        sender_id=sender,
        sender_key=sender,
        client_msg_id=client_msg_id,
        body_hash=content.encode(),
        content=content,
        reply_to=None,
        attachments=[],
        mentions=[],
        metadata={},
    )


class FakeStore:
    """Rooms in `held` are busy to whoever does not wait; `gate` holds every call back."""

    def __init__(self) -> None:
        self.calls: list[list[Draft]] = []
        self.waited: list[bool] = []
        self.held: set[UUID] = set()
        self.freed = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()
        # The next call with a draft of that room fails as a whole.
        self.outages: dict[UUID, BaseException] = {}
        self.poison: dict[str, Exception] = {}
        self.refused: dict[str, str] = {}
        self.log: dict[UUID, list[Draft]] = {}
        self.running: list[set[UUID]] = []
        self.shared_rooms: set[UUID] = set()
        self._first: dict[tuple[UUID, str, str], Draft] = {}

    async def store(self, drafts: Sequence[Draft], *, wait: bool) -> list[Outcome]:
        rooms = {each.room_id for each in drafts}
        for other in self.running:
            self.shared_rooms |= rooms & other
        self.running.append(rooms)
        self.calls.append(list(drafts))
        self.waited.append(wait)
        try:
            await self.gate.wait()
            if wait:
                async with self.freed:
                    await self.freed.wait_for(lambda: not rooms & self.held)
            for room in rooms & set(self.outages):
                raise self.outages.pop(room)
            for each in drafts:
                if each.content in self.poison:
                    raise self.poison[each.content]
            return [self._one(each) for each in drafts]
        finally:
            self.running.remove(rooms)

    async def free(self, *rooms: UUID) -> None:
        async with self.freed:
            self.held -= set(rooms)
            self.freed.notify_all()

    def _one(self, each: Draft) -> Outcome:
        if each.room_id in self.held:
            return _refused("busy")
        if each.content in self.refused:
            return _refused(self.refused[each.content])
        known = self._first.get(each.identity)
        if known is not None:
            if known.body_hash != each.body_hash:
                return _refused("idempotency.conflict")
            return Outcome("duplicate", known.message_id, None, None, NOON, 1, None)
        log = self.log.setdefault(each.room_id, [])
        log.append(each)
        self._first[each.identity] = each
        return Outcome("stored", each.message_id, len(log), len(log), NOON, 1, None)


def _refused(outcome: str) -> Outcome:
    return Outcome(outcome, None, None, None, NOON, None, None)
