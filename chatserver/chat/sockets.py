"""The commands of `/chat`."""

from typing import Final, Protocol
from uuid import UUID

from chatserver.chat.catch_up import CatchUpService
from chatserver.chat.changes import ChangeService
from chatserver.chat.errors import (
    EDIT_ERRORS,
    SEND_ERRORS,
    SILENCED,
    CursorInvalidError,
    EpochMismatchError,
    HistoryTruncatedError,
    MessageNotFoundError,
    MessageNotYoursError,
    TooManyPinsError,
    TooManyReactionsError,
)
from chatserver.chat.events import (
    MessageData,
    PinData,
    ReactionData,
    ReadData,
    Tips,
    TypingData,
)
from chatserver.chat.reads import ReadService
from chatserver.chat.schemas import (
    Changed,
    EditMessage,
    Events,
    ListMessages,
    MarkRead,
    MessageRef,
    Messages,
    Pinned,
    React,
    Reacted,
    ReadState,
    Replay,
    RoomRequest,
    SendMessage,
    Sent,
    Sync,
    Synced,
    TypingStarted,
)
from chatserver.chat.service import ChatService
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.kernel.wire import Empty
from chatserver.rooms.errors import SEEN, NotARoomMemberError, RoleMissingError
from chatserver.rooms.service import RoomService
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
    *(
        FactSpec(name, (NAMESPACE,), data, sequenced=True, summary=summary)
        for name, data, summary in (
            ("message.updated", MessageData, "A message was edited, or an answer is complete."),
            (
                "message.deleted",
                MessageData,
                "A message is a tombstone now, without content.",
            ),
            ("reaction.changed", ReactionData, "Somebody reacted, or took a reaction back."),
            ("pin.changed", PinData, "A message was pinned to its room, or is no longer."),
        )
    ),
    FactSpec(
        "read.updated",
        (NAMESPACE,),
        ReadData,
        sequenced=False,
        summary="Somebody has read up to `read_seq`; own devices are also told what is unread.",
    ),
    FactSpec(
        "typing.state",
        (NAMESPACE,),
        TypingData,
        sequenced=False,
        summary="Who else is typing now. It replaces what was told before.",
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


class ChangeCommands:
    """What is done with messages that were sent, for sockets and REST alike."""

    def __init__(self, changes: Open[ChangeService]) -> None:
        self._changes = changes

    @command("message.edit", EditMessage, Changed, scope=Scope.CHAT_WRITE, errors=EDIT_ERRORS)
    async def edit(self, principal: Principal, request: EditMessage) -> Changed:
        """Change a message of one's own.

        What is left out stays. With `if_version`, a message that was changed since is not touched:
        the refusal says its version. What it said before is kept, for its author and moderators.
        """
        async with self._changes() as changes:
            return await changes.edit(principal, request)

    @command(
        "message.delete",
        MessageRef,
        Changed,
        scope=Scope.CHAT_WRITE,
        errors=(MessageNotFoundError, MessageNotYoursError),
    )
    async def delete(self, principal: Principal, request: MessageRef) -> Changed:
        """Delete a message of one's own; moderators delete any.

        A tombstone stays in its place, with `deleted_at`, so that everyone's order is the same. Who
        has not read it yet still counts it as unread.
        """
        async with self._changes() as changes:
            return await changes.delete(principal, request)

    @command(
        "message.react",
        React,
        Reacted,
        scope=Scope.CHAT_WRITE,
        callers=USER,
        errors=(MessageNotFoundError, TooManyReactionsError, *SILENCED),
    )
    async def react(self, principal: Principal, request: React) -> Reacted:
        """Give a message an emoji, or a short name like `party`. Several are fine."""
        async with self._changes() as changes:
            return await changes.react(principal, request)

    @command(
        "message.unreact",
        React,
        Reacted,
        scope=Scope.CHAT_WRITE,
        callers=USER,
        errors=(MessageNotFoundError,),
    )
    async def unreact(self, principal: Principal, request: React) -> Reacted:
        """Take an emoji back."""
        async with self._changes() as changes:
            return await changes.unreact(principal, request)

    @command(
        "message.pin",
        MessageRef,
        Pinned,
        scope=Scope.CHAT_WRITE,
        errors=(MessageNotFoundError, RoleMissingError, TooManyPinsError, *SILENCED),
    )
    async def pin(self, principal: Principal, request: MessageRef) -> Pinned:
        """Pin a message to its room, up to 100 of them. In a channel this takes a moderator."""
        async with self._changes() as changes:
            return await changes.pin(principal, request)

    @command(
        "message.unpin",
        MessageRef,
        Pinned,
        scope=Scope.CHAT_WRITE,
        errors=(MessageNotFoundError, RoleMissingError, *SILENCED),
    )
    async def unpin(self, principal: Principal, request: MessageRef) -> Pinned:
        """Take a message off its room's pins."""
        async with self._changes() as changes:
            return await changes.unpin(principal, request)


class ReadCommands:
    """How far one has read."""

    def __init__(self, reads: ReadService) -> None:
        self._reads = reads

    @command(
        "read.mark",
        MarkRead,
        ReadState,
        scope=Scope.CHAT_READ,
        callers=USER,
        errors=(*SEEN, EpochMismatchError),
    )
    async def mark(self, principal: Principal, request: MarkRead) -> ReadState:
        """Say that one has read up to a seq. The pointer only moves forward."""
        return await self._reads.mark(principal, request)

    @command(
        "read.unmark", RoomRequest, ReadState, scope=Scope.CHAT_READ, callers=USER, errors=SEEN
    )
    async def unmark(self, principal: Principal, request: RoomRequest) -> ReadState:
        """Mark a room as unread, for oneself. What others see as read stays so."""
        return await self._reads.unmark(principal, request)


class Typing(Protocol):
    """The connection that a command came by, as its user types."""

    async def start_typing(self, room_id: UUID) -> bool:
        """Tell the room; False when that was done a moment ago. LookupError: not a member."""
        ...

    async def stop_typing(self, room_id: UUID) -> None:
        """Tell the room that it is over. LookupError: not a member."""
        ...


class TypingCommands:
    """Who is typing: nothing of it is stored."""

    def __init__(self, rooms: Open[RoomService], typing: Typing) -> None:
        self._rooms = rooms
        self._typing = typing

    @command(
        "typing.start",
        RoomRequest,
        TypingStarted,
        scope=Scope.CHAT_WRITE,
        callers=USER,
        errors=SEEN,
    )
    async def start(self, principal: Principal, request: RoomRequest) -> TypingStarted:
        """Say that one types; repeat it as `session.ready.limits.typing` says."""
        try:
            return TypingStarted(throttled=not await self._typing.start_typing(request.room_id))
        except LookupError:
            raise await self._stranger(principal, request.room_id) from None

    @command(
        "typing.stop",
        RoomRequest,
        Empty,
        scope=Scope.CHAT_WRITE,
        callers=USER,
        errors=SEEN,
    )
    async def stop(self, principal: Principal, request: RoomRequest) -> Empty:
        """Say that one types no longer."""
        try:
            await self._typing.stop_typing(request.room_id)
        except LookupError:
            raise await self._stranger(principal, request.room_id) from None
        return Empty()

    async def _stranger(self, principal: Principal, room_id: UUID) -> Exception:
        async with self._rooms() as rooms:
            await rooms.visible(principal, room_id)
        return NotARoomMemberError()
