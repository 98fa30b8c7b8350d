"""Rooms of the bare engine: python-socketio's manager interface over plain dictionaries.

What the stock one does with a task per recipient is a loop here, leaving costs what the leaving
socket was in, and ack ids are never its own bookkeeping.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from typing import Any, Final, TypeAlias

import socketio
import structlog

from chatserver.realtime.engine_socket import EngineSocket
from chatserver.realtime.packets import EVENT, Outgoing, data_packet

log = structlog.get_logger(__name__)

SLICE: Final = 500

Callback: TypeAlias = Callable[..., Any]


class Member:
    """One namespace of one engine connection.

    Until it is accepted it keeps what it gets, so that CONNECT is answered first; a refused one
    gets none of it.
    """

    __slots__ = ("_kept", "callbacks", "ids", "is_leaving", "namespace", "rooms", "sid", "socket")

    def __init__(self, namespace: str, sid: str, socket: EngineSocket) -> None:
        self.namespace = namespace
        self.sid = sid
        self.socket = socket
        self.rooms: set[Any] = set()
        self.callbacks: dict[int, Callback] = {}
        self.ids = count(1)
        self.is_leaving = False
        self._kept: list[Outgoing] | None = []

    @property
    def is_accepted(self) -> bool:
        return self._kept is None

    def send(self, packet: Outgoing) -> None:
        if self._kept is not None:
            self._kept.append(packet)
        elif not self.is_leaving:
            self.socket.outbox.put_nowait(packet)

    def accept(self, welcome: Outgoing) -> None:
        kept, self._kept = self._kept, None
        for packet in (welcome, *(kept or ())):
            self.send(packet)


class LocalManager(socketio.AsyncManager):
    """`rooms[namespace][room][sid]` is a `Member`; the room None holds all of a namespace."""

    rooms: dict[str, dict[Any, dict[str, Member]]]

    def add(self, namespace: str, socket: EngineSocket) -> Member:
        """Make a member that is yet to be accepted."""
        member = Member(namespace, self.server.eio.generate_id(), socket)
        for room in (None, member.sid):
            self._enter(member, room)
        return member

    def remove(self, member: Member) -> None:
        member.is_leaving = True
        member.callbacks.clear()
        for room in list(member.rooms):
            self._leave(member, room)

    def member(self, sid: str, namespace: str) -> Member | None:
        return self.rooms.get(namespace, {}).get(None, {}).get(sid)

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Callback | None = None,
        to: Any = None,
        **_: Any,
    ) -> None:
        """Send an event to whoever is in a room, in a list of rooms, or in the namespace.

        Raises:
            TypeError: JSON can't say the data.
        """
        members = self._addressed(namespace, to or room, skip_sid)
        arguments = [event, *_arguments(data)]
        packet = data_packet(EVENT, namespace, arguments) if callback is None else None
        for at, member in enumerate(members, 1):
            if packet is not None:
                member.send(packet)
            elif callback is not None:
                self.ask(member, arguments, callback)
            if at % SLICE == 0:
                await asyncio.sleep(0)

    def ask(self, member: Member, arguments: list[Any], callback: Callback) -> int:
        """Send an event whose ack is handed to a callback."""
        number = next(member.ids)
        packet = data_packet(EVENT, member.namespace, arguments, number)
        member.callbacks[number] = callback
        member.send(packet)
        return number

    async def trigger_callback(self, sid: str, id: int, data: list[Any]) -> None:  # noqa: A002 - stock
        for members in self.rooms.values():
            member = members.get(None, {}).get(sid)
            if member is not None:
                await self.acknowledge(member, id, data)

    async def acknowledge(self, member: Member, number: int | None, data: list[Any]) -> None:
        """Run the callback of an event; an ack that nobody asked for does nothing."""
        callback = member.callbacks.pop(number, None) if number is not None else None
        if callback is None:
            return
        try:
            answer = callback(*data)
            if isinstance(answer, Awaitable):
                await answer
        except Exception:
            log.exception("callback_failed")

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        for member in self._addressed(namespace, room, None):
            yield member.sid, member.socket.sid

    async def can_disconnect(self, sid: str, namespace: str) -> bool:
        return self.is_connected(sid, namespace)

    def is_connected(self, sid: str, namespace: str) -> bool:
        member = self.member(sid, namespace)
        return member is not None and member.is_accepted and not member.is_leaving

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        for member in self.rooms.get(namespace, {}).get(None, {}).values():
            if member.socket.sid == eio_sid:
                return member.sid
        return None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        member = self.member(sid, namespace)
        return None if member is None else member.socket.sid

    def is_sid_room(self, namespace: str, room: Any) -> bool:
        return room in self.rooms.get(namespace, {}).get(None, {})

    def basic_enter_room(
        self,
        sid: str,
        namespace: str,
        room: Any,
        eio_sid: str | None = None,  # noqa: ARG002 - stock
    ) -> None:
        member = self.member(sid, namespace)
        if member is None:
            raise ValueError("sid is not connected to requested namespace")
        if sid != room and self.is_sid_room(namespace, room):
            raise ValueError("cannot enter a sid room")
        self._enter(member, room)

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        member = self.member(sid, namespace)
        if member is not None and room is not None and room != sid:
            self._leave(member, room)

    def basic_close_room(self, room: Any, namespace: str) -> None:
        if self.is_sid_room(namespace, room):
            raise ValueError("cannot close a sid room")
        for member in list(self.rooms.get(namespace, {}).get(room, {}).values()):
            self._leave(member, room)

    def basic_disconnect(self, sid: str, namespace: str, **_: Any) -> None:
        member = self.member(sid, namespace)
        if member is not None:
            self.remove(member)

    def get_rooms(self, sid: str, namespace: str) -> list[Any]:
        member = self.member(sid, namespace)
        return [] if member is None else [room for room in member.rooms if room is not None]

    def _addressed(self, namespace: str, room: Any, skip_sid: Any) -> Sequence[Member]:
        rooms = self.rooms.get(namespace, {})
        if isinstance(room, list | tuple | set | frozenset):
            found: dict[str, Member] = {}
            for each in room:
                found.update(rooms.get(each, {}))
        else:
            found = rooms.get(room, {})
        if skip_sid is None:
            return list(found.values())
        skipped = {skip_sid} if isinstance(skip_sid, str) else set(skip_sid)
        return [member for sid, member in found.items() if sid not in skipped]

    def _enter(self, member: Member, room: Any) -> None:
        rooms = self.rooms.setdefault(member.namespace, {})
        rooms.setdefault(room, {})[member.sid] = member
        member.rooms.add(room)

    def _leave(self, member: Member, room: Any) -> None:
        member.rooms.discard(room)
        rooms = self.rooms.get(member.namespace, {})
        members = rooms.get(room)
        if members is not None:
            members.pop(member.sid, None)
            if not members:
                del rooms[room]
        if not rooms:
            self.rooms.pop(member.namespace, None)


def _arguments(data: Any) -> list[Any]:
    """Spread a tuple over several arguments, as python-socketio does."""
    if isinstance(data, tuple):
        return list(data)
    return [] if data is None else [data]
