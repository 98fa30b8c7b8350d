"""The commands of `/chat`."""

from typing import Final

from chatserver.chat.catch_up import CatchUpService
from chatserver.chat.errors import (
    SEND_ERRORS,
    CursorInvalidError,
    EpochMismatchError,
    HistoryTruncatedError,
)
from chatserver.chat.schemas import (
    Events,
    ListMessages,
    MessageData,
    Messages,
    Replay,
    SendMessage,
    Sent,
    Sync,
    Synced,
    Tips,
)
from chatserver.chat.service import ChatService
from chatserver.kernel.principal import Principal, Scope
from chatserver.rooms.errors import SEEN
from chatserver.transport.registry import USER, FactSpec, command

NAMESPACE: Final = "/chat"
FACTS: Final = (
    FactSpec(
        "message.created",
        (NAMESPACE,),
        MessageData,
        sequenced=True,
        summary="A message was sent. The echo goes to the sender's sockets, too.",
    ),
    FactSpec(
        "sync.tips",
        (NAMESPACE,),
        Tips,
        sequenced=False,
        summary="Where the logs of one's rooms end that moved in the last 20 s; told every 20 s.",
    ),
)


class ChatCommands:
    """Messages and catching up, for sockets and REST alike."""

    def __init__(self, chat: ChatService, catch_up: CatchUpService) -> None:
        self._chat = chat
        self._catch_up = catch_up

    @command(
        "message.send",
        SendMessage,
        Sent,
        scope=Scope.CHAT_WRITE,
        callers=USER,
        errors=SEND_ERRORS,
    )
    async def send(self, principal: Principal, request: SendMessage) -> Sent:
        """Send a message.

        The answer means that it is committed. Retry with the same `client_msg_id` until there is
        one: a retry gives the first message and adds nothing. A room that sleeps wakes.
        """
        return await self._chat.send(principal, request)

    @command("message.history", ListMessages, Messages, scope=Scope.CHAT_READ, errors=SEEN)
    async def history(self, principal: Principal, request: ListMessages) -> Messages:
        """Read messages, in seq order, forward from `after_seq` or back from `before_seq`."""
        return await self._chat.list(principal, request)

    @command(
        "sync",
        Sync,
        Synced,
        scope=Scope.CHAT_READ,
        callers=USER,
        errors=(CursorInvalidError,),
    )
    async def sync(self, principal: Principal, request: Sync) -> Synced:
        """Say what changed while away: rooms, memberships, and the events that are missing."""
        return await self._catch_up.sync(principal, request)

    @command(
        "room.replay",
        Replay,
        Events,
        scope=Scope.CHAT_READ,
        callers=USER,
        errors=(*SEEN, EpochMismatchError, HistoryTruncatedError),
    )
    async def replay(self, principal: Principal, request: Replay) -> Events:
        """Read a room's facts after a seq, in order. `complete: false`: ask again from the last."""
        return await self._catch_up.replay(principal, request)
