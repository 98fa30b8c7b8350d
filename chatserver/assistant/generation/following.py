"""Following an answer: what there is of it by now, and what comes, each character once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol
from uuid import UUID

import orjson
import structlog

from chatserver.assistant.generation.errors import AnswerNotFoundError
from chatserver.assistant.generation.policies import caught_up
from chatserver.assistant.generation.schemas import CatchUp, CaughtUp, FollowAnswer
from chatserver.assistant.generation.store import RUNNING, GenerationStore, State
from chatserver.assistant.generation.stream_log import Piece, StreamLog
from chatserver.infra.redis_scripts import RedisAwayError
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import EventStream
from chatserver.rooms.errors import NotARoomMemberError, RoomNotFoundError
from chatserver.rooms.models import Member, Room

# How often a follower over HTTP looks: while pieces flow, and while none do.
QUICK_S: Final = 0.03
SLOW_S: Final = 0.25
# Without a piece, the row tells that the answer has ended.
STATE_EVERY_S: Final = 0.5
BEAT_S: Final = 10.0
# Longer than any answer may take; whoever still listens then asks again.
LONGEST_S: Final = 600.0
TRIES: Final = 3

log = structlog.get_logger()


class Rooms(Protocol):
    """What this needs of the rooms' service."""

    async def visible(self, principal: Principal, room_id: UUID) -> tuple[Room, Member | None]: ...


class Messages(Protocol):
    """Where whole messages are read; see `chat/repository.py`."""

    async def message(self, client_id: UUID, message_id: UUID) -> dict[str, Any] | None: ...


class Follower:
    """Reads only. `pieces` is what Redis has; where it has nothing, the row is the truth."""

    def __init__(
        self,
        *,
        store: GenerationStore,
        stream: StreamLog,
        rooms: Open[Rooms],
        messages: Messages,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._stream = stream
        self._rooms = rooms
        self._messages = messages
        self._now = now

    async def catch_up(self, principal: Principal, command: CatchUp) -> CaughtUp:
        """Give the text so far, or just what the caller is missing.

        Raises:
            AnswerNotFoundError: no answer that the caller may read.
        """
        state = await self._readable(principal, command.message_id)
        if principal.is_user and state.status in RUNNING:
            try:
                await self._stream.add_reader(state.room_id, command.message_id, principal.user_id)
            except RedisAwayError:
                log.info("reader_not_noted")
        return await self._look(
            principal, command.message_id, state, command.generation, command.index
        )

    async def follow(self, principal: Principal, command: FollowAnswer) -> EventStream:
        """Give an answer as server-sent events, from after a delta on until it has ended.

        Raises:
            AnswerNotFoundError: no answer that the caller may read.
        """
        state = await self._readable(principal, command.message_id)
        return EventStream.of(self._events(principal, command, state))

    async def after(self, principal: Principal, said: dict[str, Any]) -> EventStream:
        """Give what follows on an answer of a command: its JSON first, then the stream."""
        message_id = UUID(said["message_id"])
        state = await self._readable(principal, message_id)
        command = FollowAnswer(message_id=message_id)
        return EventStream.of(self._events(principal, command, state, first=said))

    async def tell_cancelled(self, principal: Principal, message_id: UUID) -> None:
        """Let whoever writes an answer hear at once that it is to end; else within a second."""
        state = await self._store.state(principal.client_id, message_id)
        if state is not None and state.status in RUNNING:
            try:
                await self._stream.cancel(state.room_id, message_id)
            except RedisAwayError:
                log.info("cancel_waits_for_checkpoint")

    async def _readable(self, principal: Principal, message_id: UUID) -> State:
        state = await self._store.state(principal.client_id, message_id)
        if state is None:
            raise AnswerNotFoundError
        try:
            async with self._rooms() as rooms:
                room, me = await rooms.visible(principal, state.room_id)
        except (RoomNotFoundError, NotARoomMemberError) as error:
            raise AnswerNotFoundError from error
        if state.seq < max(room.min_seq, me.min_seq if me is not None else 1):
            raise AnswerNotFoundError
        return state

    async def _look(
        self,
        principal: Principal,
        message_id: UUID,
        state: State,
        generation: int | None,
        index: int | None,
    ) -> CaughtUp:
        pieces = await self._pieces(state, message_id, index)
        for _ in range(TRIES):
            if all(piece.generation <= state.generation for piece in pieces):
                break
            # Somebody took the answer over between the two looks.
            again = await self._store.state(principal.client_id, message_id)
            state = state if again is None else again
            pieces = await self._pieces(state, message_id, index)
        joined = caught_up(state, pieces, generation=generation, index=index)
        return CaughtUp(
            message_id=message_id,
            generation=state.generation,
            index=joined.index,
            status=state.status,
            after_index=joined.after_index,
            text=joined.text,
            sources=state.sources,
        )

    async def _pieces(self, state: State, message_id: UUID, index: int | None) -> list[Piece]:
        if state.status not in RUNNING and index is None:
            return []
        after = state.index if index is None else min(index, state.index)
        try:
            return await self._stream.read(state.room_id, message_id, after=after)
        except RedisAwayError:
            return []

    async def _events(
        self,
        principal: Principal,
        command: FollowAnswer,
        state: State,
        first: dict[str, Any] | None = None,
    ) -> AsyncIterator[bytes]:
        if first is not None:
            yield _event("message.created", first)
        message_id = command.message_id
        generation = state.generation if command.generation is None else command.generation
        index, told_sources = command.after_index, False
        ends_at = self._now() + LONGEST_S
        looked_at = beat_at = 0.0
        pause = QUICK_S
        is_first = True
        while self._now() < ends_at:
            now = self._now()
            try:
                if is_first or now - looked_at >= STATE_EVERY_S:
                    looked_at = now
                    found = await self._store.state(principal.client_id, message_id)
                    if found is None:
                        return
                    state = found
                seen = await self._look(principal, message_id, state, generation, index or None)
            except UnavailableError:
                # The answer goes on without us; we look again when PostgreSQL is back.
                await asyncio.sleep(SLOW_S)
                continue
            if not told_sources and seen.sources is not None:
                told_sources = True
                data = {"message_id": str(message_id), "sources": seen.sources}
                yield _event("message.sources", data)
            is_new = seen.text or seen.generation != generation or seen.index != index
            if is_new or is_first:
                goes_on = seen.after_index == index and seen.generation == generation
                name = "message.delta" if goes_on and not is_first else "catch_up"
                yield _event(name, _shaped(seen), f"{seen.generation}.{seen.index}")
                generation, index, beat_at = seen.generation, seen.index, now
                is_first = False
            if seen.status not in RUNNING:
                message = await self._messages.message(principal.client_id, message_id)
                yield _event("message.updated", {"message": message})
                return
            if now - beat_at >= BEAT_S:
                beat_at = now
                yield b": still writing\n\n"
            pause = QUICK_S if is_new else min(SLOW_S, pause * 1.5)
            await asyncio.sleep(pause)


def _shaped(seen: CaughtUp) -> dict[str, Any]:
    return seen.model_dump(mode="json", exclude={"sources"})


def _event(name: str, data: Any, event_id: str | None = None) -> bytes:  # noqa: ANN401 - JSON
    named = b"" if event_id is None else b"id: %b\n" % event_id.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (named, name.encode(), orjson.dumps(data, default=str))
