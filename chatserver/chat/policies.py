"""What a message may be. Pure decisions."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from chatserver.chat.errors import EditWindowOverError, MessageTooLongError
from chatserver.chat.models import Message
from chatserver.chat.schemas import EditMessage, SendMessage
from chatserver.kernel.errors import PayloadInvalidError


class Screened(Protocol):
    """What the client's rules make of a text."""

    @property
    def content(self) -> str: ...

    @property
    def flagged_by(self) -> Sequence[UUID]: ...


class Screen(Protocol):
    """Holds texts against the client's rules before they are stored."""

    async def check(self, client_id: UUID, room_id: UUID, content: str) -> Screened:
        """Give the text to store and the rules that flag it; raise `message.rejected`."""
        ...

    async def flag(
        self, client_id: UUID, room_id: UUID, message_id: UUID, rules: Sequence[UUID]
    ) -> None:
        """Flag a message that is about to be stored."""
        ...


# What a page of messages may come to: the answer itself must not be what cuts a socket.
PAGE_BYTES: Final = 256 * 1024
MESSAGE_BYTES: Final = 800
# Where so many read, nobody looks who has read what; and in which rooms at all.
SHARED_BY: Final = 100
SHARED_TYPES: Final = frozenset({"direct", "group", "support"})
METADATA_BYTES: Final = 16 * 1024
ATTACHMENTS_BYTES: Final = 32 * 1024


def check_size(command: SendMessage | EditMessage, *, characters: int, octets: int) -> None:
    """Refuse a message that says nothing, or too much: text by characters and bytes, all by bytes.

    Raises:
        MessageTooLongError, PayloadInvalidError
    """
    content = command.content or ""
    if not content and isinstance(command, SendMessage) and not command.attachments:
        raise PayloadInvalidError.of("content", "may be empty only where there are attachments")
    if len(content) > characters:
        raise _too_long(characters, "characters")
    if len(content) * 4 > octets and len(content.encode()) > octets:
        raise _too_long(octets, "bytes")
    if command.metadata and len(orjson.dumps(command.metadata)) > METADATA_BYTES:
        raise PayloadInvalidError.of("metadata", f"has more than {METADATA_BYTES} bytes")
    attachments = command.attachments if isinstance(command, SendMessage) else None
    if attachments and len(orjson.dumps(attachments)) > ATTACHMENTS_BYTES:
        raise PayloadInvalidError.of("attachments", f"has more than {ATTACHMENTS_BYTES} bytes")


def _too_long(most: int, unit: str) -> MessageTooLongError:
    says = f"has more than {most} {unit}"
    return MessageTooLongError(
        f"The text {says}.", issues=({"field": "content", "issue": says},), max=most, unit=unit
    )


def fitting(messages: Sequence[dict[str, Any]]) -> int:
    """Tell how many of these go into one answer; one that is too large goes alone."""
    size = 0
    for count, message in enumerate(messages):
        size += MESSAGE_BYTES + len(message["content"].encode())
        for name in ("partial_content", "context", "attachments", "metadata", "mentions"):
            if message.get(name):
                size += len(orjson.dumps(message[name], default=str))
        if size > PAGE_BYTES and count:
            return count
    return len(messages)


def body_hash(command: SendMessage) -> bytes:
    """Fingerprint what makes a message what it is: a retry has the same, another message hasn't."""
    parts: list[Any] = [
        command.content,
        None if command.reply_to is None else str(command.reply_to),
        command.attachments,
        command.mentions,
        command.metadata,
    ]
    if command.silent:
        # Not otherwise: what was stored before there were silent ones keeps its fingerprint.
        parts.append("silent")
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()


def changes(message: Message, command: EditMessage) -> dict[str, Any]:
    """Give the columns of a message that an edit would change."""
    wanted: dict[str, Any] = {
        "content": command.content,
        "mentions": None if command.mentions is None else list(dict.fromkeys(command.mentions)),
        "details": command.metadata,
    }
    return {
        name: value
        for name, value in wanted.items()
        if value is not None and value != getattr(message, name)
    }


def check_edit_window(created_at: datetime, now: datetime, window_s: int | None) -> None:
    """Refuse to edit what is older than the client allows; None: there is no such age.

    Raises:
        EditWindowOverError
    """
    if window_s is not None and now > created_at + timedelta(seconds=window_s):
        raise EditWindowOverError(edit_window_s=window_s)


def counted(reactions: list[dict[str, Any]], emoji: str, by: int) -> list[dict[str, Any]]:
    """Give a message's reactions with one more or one less of an emoji; the order stays."""
    counts = as_counts(reactions)
    counts[emoji] = counts.get(emoji, 0) + by
    return [{"emoji": name, "count": count} for name, count in counts.items() if count > 0]


def as_counts(reactions: list[dict[str, Any]]) -> dict[str, int]:
    return {each["emoji"]: each["count"] for each in reactions}
