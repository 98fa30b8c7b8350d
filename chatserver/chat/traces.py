"""Why a message did or did not arrive: what is known of its way, in one answer."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol, TypeAlias
from uuid import UUID

from chatserver.chat.errors import MessageNotYoursError
from chatserver.chat.pointers import PointerRepository
from chatserver.chat.schemas import MessageRef
from chatserver.chat.service import ChatService
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Answer, Id, Timestamp, left_out
from chatserver.rooms import policies as room_policies

NAMED: Final = 100

# (room, seq) to what the nodes say of having shown it.
Shown: TypeAlias = Callable[[UUID, int], Awaitable[list[dict[str, Any]]]]
# Users to how they are: `status` and `last_active_at`; empty while nobody can tell.
Present: TypeAlias = Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, dict[str, Any]]]]


class NodeTrace(Answer):
    """What one node did. `head`: how far it has shown the room; null: nobody of it is there."""

    node: str
    head: int | None
    shown_at: Timestamp | None
    sockets: int | None


class OutboxTrace(Answer):
    """What is to follow and has not been planned yet; `error` is why it failed the last time."""

    attempts: int
    due_at: Timestamp | None
    error: str | None
    set_aside_at: Timestamp | None


class Unreached(Answer):
    """A member who has not read it. `status` null: it can't be known now who is there.

    How he wants to be told is his own affair: only the application sees it.
    """

    user_id: str
    status: Literal["online", "away", "offline"] | None
    last_active_at: Timestamp | None
    is_muted: bool | None = left_out()
    notification_level: str | None = left_out()


class WebhookTrace(Answer):
    """What an endpoint got of it: the state of its delivery, or why there is none.

    `not_wanted`: its filters leave it out. `not_planned`: not yet, or the endpoint was made later,
    or is stopped.
    """

    endpoint_id: Id
    state: str
    reason: str | None
    delivery_id: Id | None
    attempts: int
    next_at: Timestamp | None
    settled_at: Timestamp | None


class NotificationTrace(Answer):
    """What a member was notified of: by the server because he was absent, or by the application.

    The server puts one notification a room into an inbox (`notification_id`; `socket`, `accepted`
    or `delivered`): it stands for what concerns the member up to `upto_seq`, and has no delivery of
    its own. A mail or a push that follows unless it is read is a delivery, and so is what the
    application sent with this message as `metadata.message_id`.
    """

    user_id: str
    channel: str
    state: str
    reason: str | None
    delivery_id: Id | None
    settled_at: Timestamp | None
    notification_id: Id | None = left_out()
    upto_seq: int | None = left_out()


class Trace(Answer):
    """How far a message came. `read_by` names up to 100 who have read it; the sender, too.

    `unread_by`: up to 100 members who have not. `webhooks` and `notifications` are for the
    application alone.
    """

    message_id: Id
    room_id: Id
    seq: int
    committed_at: Timestamp
    fact_id: Id
    waits_for_reactions: bool
    members_count: int
    outbox: OutboxTrace | None
    nodes: list[NodeTrace]
    read_count: int
    read_by: list[str]
    unread_by: list[Unreached]
    webhooks: list[WebhookTrace] | None = left_out()
    notifications: list[NotificationTrace] | None = left_out()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A message as what follows it is looked up: its place in the log, and for whom it was."""

    client_id: UUID
    message_id: UUID
    room_id: UUID
    room_type: str
    seq: int
    fact_id: UUID
    actor_type: str
    actor_id: str | None
    created_at: datetime
    # Members who have not read it, up to 100.
    people: Sequence[str]


class Onward(Protocol):
    """What became of a message beyond the sockets: other features know."""

    async def webhooks(self, message: Traced) -> list[dict[str, Any]]:
        """Give the members of `WebhookTrace` for every endpoint of the client."""
        ...

    async def notifications(self, message: Traced) -> list[dict[str, Any]]:
        """Give the members of `NotificationTrace`."""
        ...


class TraceService:
    """Reads only. For the author of a message, moderators and the application."""

    def __init__(
        self, *, chat: ChatService, pointers: PointerRepository, onward: Onward | None = None
    ) -> None:
        self._chat = chat
        self._pointers = pointers
        # Set by who builds what stands above the conversation.
        self.onward = onward

    async def of(
        self, principal: Principal, command: MessageRef, shown: Shown, present: Present
    ) -> Trace:
        """Tell how far a message came.

        Raises:
            MessageNotFoundError, MessageNotYoursError
        """
        message, room, me = await self._chat.visible(principal, command.message_id)
        is_own = principal.is_user and message["sender_id"] == principal.external_id
        if me is not None and not is_own and not room_policies.ranks(me.role, "moderator"):
            raise MessageNotYoursError
        if principal.is_user and me is None:
            raise MessageNotYoursError
        seq = message["seq"]
        fact = await self._pointers.fact(room.id, seq)
        readers, count = await self._pointers.readers(room.id, seq, limit=NAMED)
        unread = await self._pointers.not_readers(room.id, seq, limit=NAMED)
        nodes = [NodeTrace(**each) for each in await shown(room.id, seq)]
        statuses = await present([row["user_id"] for row in unread])
        trace = Trace(
            message_id=command.message_id,
            room_id=room.id,
            seq=seq,
            committed_at=fact["created_at"],
            fact_id=fact["id"],
            waits_for_reactions=fact["attempts"] is not None,
            members_count=room.members_count,
            outbox=_outbox(fact),
            nodes=nodes,
            read_count=count,
            read_by=readers,
            unread_by=[
                _unreached(row, statuses.get(row["user_id"]), is_told=not principal.is_user)
                for row in unread
            ],
        )
        if principal.is_user or self.onward is None:
            return trace
        traced = Traced(
            client_id=principal.client_id,
            message_id=command.message_id,
            room_id=room.id,
            room_type=room.type,
            seq=seq,
            fact_id=fact["id"],
            actor_type=fact["actor_type"],
            actor_id=fact["actor_id"],
            created_at=fact["created_at"],
            people=[row["external_id"] for row in unread],
        )
        hooks = await self.onward.webhooks(traced)
        told = await self.onward.notifications(traced)
        return trace.model_copy(
            update={
                "webhooks": [WebhookTrace(**each) for each in hooks],
                "notifications": [NotificationTrace(**each) for each in told],
            }
        )


def _outbox(fact: Mapping[str, Any]) -> OutboxTrace | None:
    if fact["attempts"] is None:
        return None
    return OutboxTrace(
        attempts=fact["attempts"],
        due_at=fact["due_at"],
        error=fact["error"],
        set_aside_at=fact["set_aside_at"],
    )


def _unreached(
    row: Mapping[str, Any], status: Mapping[str, Any] | None, *, is_told: bool
) -> Unreached:
    found = Unreached(
        user_id=row["external_id"],
        status=None if status is None else status["status"],
        last_active_at=None if status is None else status["last_active_at"],
    )
    if not is_told:
        return found
    return found.model_copy(
        update={"is_muted": row["is_muted"], "notification_level": row["notification_level"]}
    )
