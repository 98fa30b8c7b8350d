"""One action of a rule, done exactly once per event, rule and place, whatever dies meanwhile.

An effect in our own tables and the note that it was done are one transaction. A message is stored
by the group commit, in a transaction of its own: there its never-expiring `client_msg_id`, made
from event, rule and place, is what makes a repeat harmless.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from chatserver.chat.schemas import PostMessage
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.errors import IdempotencyConflictError, PayloadInvalidError
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Caller, Principal
from chatserver.rooms.schemas import CreateRoom, ExternalRoomRef
from chatserver.rooms.service import RoomService
from chatserver.transport.registry import parse
from chatserver.users.service import UserService
from chatserver.webhooks.sources.arrivals import EventRepository
from chatserver.webhooks.sources.models import InboundEffect, InboundEvent, InboundSource
from chatserver.webhooks.sources.parts import Asks, Forwards, Parts, Posts

_KEYS: Final = UUID("7a1c3c0e-5f0b-5d67-9a53-0d4f6f0a6b11")


@dataclass(frozen=True, slots=True)
class Begun:
    """An event that is worked on."""

    event: InboundEvent
    source: InboundSource
    client_slug: str
    # What is planned already.
    effects: Sequence[InboundEffect]


class Effects:
    """Does single actions. Safe to repeat, and to run twice at once."""

    def __init__(
        self,
        *,
        open_work: Open[UnitOfWork],
        rooms: Callable[[UnitOfWork], RoomService],
        people: Callable[[UnitOfWork], UserService],
        posts: Posts,
        parts: Parts,
    ) -> None:
        self._open_work = open_work
        self._rooms = rooms
        self._people = people
        self._posts = posts
        self._parts = parts

    async def do(self, begun: Begun, effect: InboundEffect) -> bool:
        """Do an effect. False: it is not to be done any more, somebody else had it, too."""
        if effect.action == "post_message":
            return await self._post(begun, effect)
        return await self._within(begun, effect)

    async def _within(self, begun: Begun, effect: InboundEffect) -> bool:
        """Do an effect of our own tables: it and its note are one transaction."""
        async with self._open_work() as work:
            events = EventRepository(work.session)
            held = await events.lock_effect(effect)
            if held is None:
                return False
            if effect.action == "create_room":
                held.result = await self._create_room(work, begun, held.arguments)
                # What is said there next need not look for the room, nor ever choose another.
                effect.room_id = held.room_id = UUID(held.result["room_id"])
                await events.settle(held)
            elif effect.action == "forward" and self._parts.forward is not None:
                held.result = await self._forward(work, self._parts.forward, begun, held)
            elif effect.action == "notify" and self._parts.notify is not None:
                made = await self._parts.notify(
                    work,
                    client_id=held.client_id,
                    key=key_of(held),
                    notification=held.arguments,
                )
                held.result = {"notification_id": str(made)}
            elif effect.action == "ask_assistant" and self._parts.ask is not None:
                held.result = await self._ask(work, self._parts.ask, begun, held)
            else:
                raise PayloadInvalidError.of("type", "not available yet")
            held.state = "done"
            held.done_at = events.moment()
        return True

    async def _create_room(
        self, work: UnitOfWork, begun: Begun, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        metadata = {**arguments["metadata"], "webhook": _origin(begun)}
        command = parse(CreateRoom, {**arguments, "metadata": metadata})
        assert isinstance(command, CreateRoom)  # noqa: S101 - `parse` gives what it is asked for
        if command.member_ids:
            await self._people(work).ensure(begun.source.client_id, command.member_ids)
        made = await self._rooms(work).create(_application(begun), command)
        return {"room_id": str(made.id), "created": made.created}

    async def _forward(
        self, work: UnitOfWork, forward: Forwards, begun: Begun, effect: InboundEffect
    ) -> dict[str, Any]:
        arguments = effect.arguments
        queued = await forward(
            work,
            client_id=effect.client_id,
            endpoint_id=UUID(arguments["endpoint_id"]),
            event_id=key_of(effect),
            type=arguments["event_type"],
            data={
                "source": begun.source.slug,
                "event_id": str(begun.event.id),
                "external_id": begun.event.external_id,
                **arguments["data"],
            },
            hops=begun.event.hops + 1,
        )
        return {"delivery_id": str(queued)}

    async def _post(self, begun: Begun, effect: InboundEffect) -> bool:
        room_id = await self._settle_room(begun, effect)
        if room_id is None:
            return False
        arguments = effect.arguments
        message = {
            "room_id": str(room_id),
            "content": arguments["content"],
            "client_msg_id": f"webhook:{key_of(effect)}",
            "sender_id": arguments["sender_id"],
            "mentions": arguments["mentions"],
            "metadata": {**arguments["metadata"], "webhook": _origin(begun)},
        }
        command = parse(PostMessage, message)
        assert isinstance(command, PostMessage)  # noqa: S101 - `parse` gives what it is asked for
        try:
            sent = await self._posts.post(_application(begun), command)
        except IdempotencyConflictError:
            # Done before a replay, under rules of then, and not noted: once is once.
            result: dict[str, Any] = {"room_id": str(room_id), "done_before": True}
        else:
            result = {"room_id": str(room_id), "message_id": str(sent.message.id)}
        await self.note(effect, "done", None, result)
        return True

    async def _ask(
        self, work: UnitOfWork, ask: Asks, begun: Begun, effect: InboundEffect
    ) -> dict[str, Any]:
        arguments = effect.arguments
        if effect.room_id is None:
            effect.room_id = await self._find_room(work, begun, arguments)
        answer = await ask(
            work,
            client_id=effect.client_id,
            room_id=effect.room_id,
            sender_id=arguments["sender_id"],
            content=arguments["content"],
            bot_id=arguments["bot_id"],
            client_msg_id=f"webhook:{key_of(effect)}",
            origin=_origin(begun),
        )
        return {"room_id": str(effect.room_id), "message_id": str(answer)}

    async def _settle_room(self, begun: Begun, effect: InboundEffect) -> UUID | None:
        """Decide once where a message goes: a repeat must not go to another room."""
        if effect.room_id is not None:
            return effect.room_id
        async with self._open_work() as work:
            held = await EventRepository(work.session).lock_effect(effect)
            if held is None:
                return None
            if held.room_id is None:
                held.room_id = await self._find_room(work, begun, held.arguments)
            return held.room_id

    async def _find_room(
        self, work: UnitOfWork, begun: Begun, arguments: Mapping[str, Any]
    ) -> UUID:
        if arguments["room_id"] is not None:
            try:
                return UUID(arguments["room_id"])
            except ValueError as error:
                raise PayloadInvalidError.of("room_id", "is not an id") from error
        named = parse(ExternalRoomRef, {"external_id": arguments["room_external_id"]})
        assert isinstance(named, ExternalRoomRef)  # noqa: S101 - `parse` gives what it is asked for
        found = await self._rooms(work).get_external(_application(begun), named)
        return found.id

    async def note(
        self,
        effect: InboundEffect,
        state: str,
        error: str | None,
        result: dict[str, Any] | None = None,
    ) -> None:
        async with self._open_work() as work:
            events = EventRepository(work.session)
            held = await events.lock_effect(effect)
            if held is None:
                return
            held.state, held.error, held.result = state, error, result or {}
            held.done_at = events.moment()


def key_of(effect: InboundEffect) -> UUID:
    """Give the id of an effect: of event, rule and place, and of nothing else."""
    return uuid5(_KEYS, f"{effect.event_id}|{effect.rule}|{effect.place}")


def _origin(begun: Begun) -> dict[str, Any]:
    # Outbound webhooks about what an event led to carry the hops on, so that a loop ends.
    return {
        "source": begun.source.slug,
        "event_id": str(begun.event.id),
        "hops": begun.event.hops + 1,
    }


def _application(begun: Begun) -> Principal:
    return Principal(
        caller=Caller.MASTER,
        client_id=begun.source.client_id,
        client_slug=begun.client_slug,
    )
