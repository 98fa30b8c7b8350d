"""The connection whose command is running, as commands see it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chatserver.kernel.principal import Principal
from chatserver.realtime.current import current
from chatserver.realtime.engine import Realtime
from chatserver.realtime.hub import Connection
from chatserver.realtime.ports import Handshake
from chatserver.realtime.watching import Reload, shown


class Running:
    """The engine is built with the door, the door with the registry: this closes the circle.

    `LookupError` is raised by all that need a connection, when the command did not come from one.
    """

    def __init__(self) -> None:
        self.realtime: Realtime | None = None

    async def watch(self, room_id: UUID) -> int:
        return await self._engine().watch(room_id)

    async def unwatch(self, room_id: UUID) -> None:
        await self._engine().unwatch(room_id)

    async def start_typing(self, room_id: UUID) -> bool:
        return self._engine().typists.start(current(), room_id)

    async def stop_typing(self, room_id: UUID) -> None:
        self._engine().typists.stop(current(), room_id)

    async def delivered(self, room_id: UUID, seq: int) -> list[dict[str, Any]]:
        return await self._engine().deliveries.find(room_id, seq)

    async def present(self, users: Sequence[UUID]) -> Mapping[UUID, dict[str, Any]]:
        """Tell how people are; nothing while that can't be known."""
        presence = self._engine().presence
        if presence is None:
            return {}
        try:
            found = await presence.read(users)
        except ConnectionError:
            return {}
        return {user_id: shown(status) for user_id, status in found.items()}

    async def set_presence(self, status: str) -> None:
        await self._engine().set_presence(status)

    async def watch_presence(
        self,
        users: Mapping[UUID, str],
        rooms: Mapping[UUID, tuple[Mapping[UUID, str], Reload]],
    ) -> dict[str, Any]:
        return await self._engine().watch_presence(users, rooms)

    def handshake(self) -> Handshake:
        """Give what the connection said of itself."""
        handshake: Handshake = current().session.handshake
        return handshake

    async def renew(self, token: str, client: str | None, principal: Principal) -> None:
        """Let the connection go on with another credential of its user."""
        engine = self._engine()
        session = current().session
        await engine.entrance.renew(session, (token, client), principal)
        for connection in list(session.connections.values()):
            if not engine.may_listen(principal, connection.namespace):
                self._deafen(connection)
            elif not engine.hub.has(connection):
                await engine.memberships.settle(engine.hub.add(connection))

    def __call__(self, principal: Principal) -> int:
        """Tell how many connections a principal's client has."""
        census = self._engine().entrance.census
        return 0 if census is None else census.of_client(principal)

    def _deafen(self, connection: Connection) -> None:
        """Show a connection nothing more. What it misses from now on, no recovery makes good."""
        engine = self._engine()
        connection.goodbye = True
        if engine.watchers is not None:
            engine.watchers.forget(connection)
        engine.hub.remove(connection)

    def _engine(self) -> Realtime:
        assert self.realtime is not None  # noqa: S101 - set before the first request
        return self.realtime
