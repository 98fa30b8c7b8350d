"""REST for messages: routes to the commands, and what only REST has."""

from typing import Final

from chatserver.chat.catch_up import CatchUpService
from chatserver.chat.errors import (
    SEND_ERRORS,
    EpochMismatchError,
    HistoryTruncatedError,
    MessageNotFoundError,
)
from chatserver.chat.schemas import (
    Events,
    ListEvents,
    MessageOut,
    MessageRef,
    PostMessage,
    RoomRequest,
    Sent,
    Snapshot,
)
from chatserver.chat.service import ChatService
from chatserver.kernel.principal import Principal, Scope
from chatserver.rooms.errors import SEEN
from chatserver.transport.registry import Route, operation
from chatserver.users.errors import UserNotFoundError


class ChatHttp:
    def __init__(self, chat: ChatService, catch_up: CatchUpService) -> None:
        self._chat = chat
        self._catch_up = catch_up

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


_ROOM = "/rooms/{room_id}"
ROUTES: Final = (
    Route(method="GET", path=_ROOM + "/messages", operation="message.history"),
    Route(method="POST", path=_ROOM + "/messages", operation="message.post", status=201),
    Route(method="GET", path=_ROOM + "/events", operation="event.list"),
    Route(method="GET", path=_ROOM + "/snapshot", operation="room.snapshot"),
    Route(method="GET", path="/messages/{message_id}", operation="message.get"),
)
