"""What rules' actions need of other features, as small Protocols that wiring fills in."""

from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from chatserver.chat.schemas import PostMessage, Sent
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.principal import Principal


class Posts(Protocol):
    async def post(self, principal: Principal, command: PostMessage) -> Sent:
        """Store a message; the same `client_msg_id` stores it once, for ever."""
        ...


class Forwards(Protocol):
    async def __call__(
        self,
        work: UnitOfWork,
        *,
        client_id: UUID,
        endpoint_id: UUID,
        event_id: UUID,
        type: str,  # noqa: A002 - the wire's own name
        data: dict[str, Any],
        hops: int,
    ) -> UUID:
        """Queue a delivery to an endpoint in this unit of work; its id."""
        ...

    async def knows(self, work: UnitOfWork, client_id: UUID, endpoint_id: UUID) -> bool:
        """Tell whether a client has this endpoint."""
        ...


class Notifies(Protocol):
    async def __call__(
        self, work: UnitOfWork, *, client_id: UUID, key: UUID, notification: dict[str, Any]
    ) -> UUID:
        """Accept a notification in this unit of work; its id."""
        ...


class Asks(Protocol):
    async def __call__(
        self,
        work: UnitOfWork,
        *,
        client_id: UUID,
        room_id: UUID,
        sender_id: str,
        content: str,
        bot_id: str | None,
        client_msg_id: str,
        origin: dict[str, Any],
    ) -> UUID:
        """Ask a bot in a member's name in this unit of work; the id of the answer.

        `origin` stands in the metadata of both messages: what follows from them knows its hops.
        """
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What actions need of other features; a part that is None refuses its rules."""

    forward: Forwards | None = None
    notify: Notifies | None = None
    ask: Asks | None = None

    def lacks(self, action: str) -> bool:
        """Tell whether an action can't be done by this server."""
        needed = {"forward": self.forward, "notify": self.notify, "ask_assistant": self.ask}
        return action in needed and needed[action] is None
