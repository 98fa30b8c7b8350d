"""REST for messages: routes to the commands, and what only REST has."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.chat.catch_up import CatchUpService
from chatserver.chat.changes import ChangeService
from chatserver.chat.errors import (
    SEND_ERRORS,
    EpochMismatchError,
    HistoryTruncatedError,
    MessageNotFoundError,
    MessageNotYoursError,
)
from chatserver.chat.reads import ReadService
from chatserver.chat.schemas import (
    Edits,
    Events,
    ListEvents,
    ListReactions,
    ListThread,
    MessageOut,
    MessageRef,
    PostMessage,
    Reactions,
    ReadSummary,
    RoomRequest,
    Sent,
    Snapshot,
    Thread,
)
from chatserver.chat.service import ChatService
from chatserver.chat.traces import Trace, TraceService
from chatserver.clients.schemas import Nothing
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.rooms.errors import SEEN
from chatserver.transport.registry import USER, Route, operation
from chatserver.users.errors import UserNotFoundError


class Nodes(Protocol):
    """The nodes of the deployment."""

    async def delivered(self, room_id: UUID, seq: int) -> list[dict[str, Any]]:
        """Tell which of them showed a message."""
        ...

    async def present(self, users: Sequence[UUID]) -> Mapping[UUID, dict[str, Any]]:
        """Tell how people are; nothing while nobody can tell."""
        ...


class ChatHttp:
    def __init__(
        self,
        chat: ChatService,
        catch_up: CatchUpService,
        changes: Open[ChangeService],
        reads: ReadService,
        traces: TraceService,
        nodes: Nodes,
    ) -> None:
        self._chat = chat
        self._catch_up = catch_up
        self._changes = changes
        self._reads = reads
        self._traces = traces
        self._nodes = nodes

    @operation(
        "message.post",
        PostMessage,
        Sent,
        scope=Scope.CHAT_WRITE,
        errors=(*SEND_ERRORS, UserNotFoundError),
    )
    async def post(self, principal: Principal, request: PostMessage) -> Sent:
        """Send a message.

        A scoped key sends as its user. A master key names the sender with `sender_id`, else the
        sender is `system`.
        """
        return await self._chat.post(principal, request)

    @operation(
        "message.get",
        MessageRef,
        MessageOut,
        scope=Scope.CHAT_READ,
        errors=(MessageNotFoundError,),
    )
    async def get(self, principal: Principal, request: MessageRef) -> MessageOut:
        """Read one message."""
        return await self._chat.get(principal, request)

    @operation(
        "message.thread",
        ListThread,
        Thread,
        scope=Scope.CHAT_READ,
        errors=(MessageNotFoundError,),
    )
    async def thread(self, principal: Principal, request: ListThread) -> Thread:
        """Read the replies below a message, the oldest first."""
        return await self._chat.thread(principal, request)

    @operation(
        "message.edits",
        MessageRef,
        Edits,
        scope=Scope.CHAT_READ,
        errors=(MessageNotFoundError, MessageNotYoursError),
    )
    async def edits(self, principal: Principal, request: MessageRef) -> Edits:
        """Read what a message said before it was edited: its author and moderators may."""
        async with self._changes() as changes:
            return await changes.edits(principal, request)

    @operation(
        "reaction.list",
        ListReactions,
        Reactions,
        scope=Scope.CHAT_READ,
        errors=(MessageNotFoundError,),
    )
    async def reactions(self, principal: Principal, request: ListReactions) -> Reactions:
        """List who reacted to a message, with which emoji."""
        async with self._changes() as changes:
            return await changes.reactions(principal, request)

    @operation(
        "message.trace",
        MessageRef,
        Trace,
        scope=Scope.CHAT_READ,
        errors=(MessageNotFoundError, MessageNotYoursError),
    )
    async def trace(self, principal: Principal, request: MessageRef) -> Trace:
        """Tell how far a message came, and so why it did or did not arrive.

        Its author, moderators and the application may. `nodes` lists those that have people of the
        room connected and answered within 0.4 s; what a node showed is remembered for a while.
        The application also sees what became of webhooks and notifications.
        """
        return await self._traces.of(principal, request, self._nodes.delivered, self._nodes.present)

    @operation("read.summary", Nothing, ReadSummary, scope=Scope.CHAT_READ, callers=USER)
    async def summary(self, principal: Principal, _: Nothing) -> ReadSummary:
        """Count what one has not read, over all rooms."""
        return await self._reads.summary(principal)

    @operation(
        "event.list",
        ListEvents,
        Events,
        scope=Scope.CHAT_READ,
        errors=(*SEEN, EpochMismatchError, HistoryTruncatedError),
    )
    async def events(self, principal: Principal, request: ListEvents) -> Events:
        """Read a room's log, in order, from `after_seq` on."""
        return await self._catch_up.events(principal, request)

    @operation("room.snapshot", RoomRequest, Snapshot, scope=Scope.CHAT_READ, errors=SEEN)
    async def snapshot(self, principal: Principal, request: RoomRequest) -> Snapshot:
        """Read a room's state as of a seq: apply the facts after it."""
        return await self._catch_up.snapshot(principal, request)


# What a device may ask on its socket as well. A snapshot is not: it may be larger than a socket
# takes at once.
COMMANDS: Final = frozenset(
    {
        "message.get",
        "message.thread",
        "message.edits",
        "message.trace",
        "reaction.list",
        "read.summary",
    }
)
_ROOM = "/rooms/{room_id}"
_MESSAGE = "/messages/{message_id}"
ROUTES: Final = (
    Route(method="GET", path=_ROOM + "/messages", operation="message.history"),
    Route(method="POST", path=_ROOM + "/messages", operation="message.post", status=201),
    Route(method="GET", path=_ROOM + "/events", operation="event.list"),
    Route(method="GET", path=_ROOM + "/snapshot", operation="room.snapshot"),
    Route(method="POST", path=_ROOM + "/read", operation="read.mark"),
    Route(method="POST", path=_ROOM + "/unread", operation="read.unmark"),
    Route(method="GET", path="/me/unread", operation="read.summary"),
    Route(method="GET", path=_MESSAGE, operation="message.get"),
    Route(method="PATCH", path=_MESSAGE, operation="message.edit"),
    Route(method="DELETE", path=_MESSAGE, operation="message.delete"),
    Route(method="GET", path=_MESSAGE + "/reactions", operation="reaction.list"),
    Route(method="PUT", path=_MESSAGE + "/reactions/{emoji}", operation="message.react"),
    Route(method="DELETE", path=_MESSAGE + "/reactions/{emoji}", operation="message.unreact"),
    Route(method="PUT", path=_MESSAGE + "/pin", operation="message.pin"),
    Route(method="DELETE", path=_MESSAGE + "/pin", operation="message.unpin"),
    Route(method="GET", path=_MESSAGE + "/thread", operation="message.thread"),
    Route(method="GET", path=_MESSAGE + "/edits", operation="message.edits"),
    Route(method="GET", path=_MESSAGE + "/trace", operation="message.trace"),
)
