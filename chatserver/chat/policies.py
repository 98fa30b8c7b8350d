"""What a message may be. Pure decisions."""

import hashlib
from typing import Any, Final

import orjson

from chatserver.chat.errors import MessageTooLongError
from chatserver.chat.schemas import SendMessage
from chatserver.kernel.errors import PayloadInvalidError

METADATA_BYTES: Final = 16 * 1024
ATTACHMENTS_BYTES: Final = 32 * 1024


def check_size(command: SendMessage, *, characters: int, octets: int) -> None:
    """Refuse a message beyond the limits: text by characters and by bytes, the rest by bytes.

    Raises:
        MessageTooLongError, PayloadInvalidError
    """
    if len(command.content) > characters:
        raise MessageTooLongError(
            f"The text has more than {characters} characters.", max=characters, unit="characters"
        )
    if len(command.content) * 4 > octets and len(command.content.encode()) > octets:
        raise MessageTooLongError(
            f"The text has more than {octets} bytes.", max=octets, unit="bytes"
        )
    if command.metadata and len(orjson.dumps(command.metadata)) > METADATA_BYTES:
        raise PayloadInvalidError.of("metadata", f"has more than {METADATA_BYTES} bytes")
    if command.attachments and len(orjson.dumps(command.attachments)) > ATTACHMENTS_BYTES:
        raise PayloadInvalidError.of("attachments", f"has more than {ATTACHMENTS_BYTES} bytes")


def body_hash(command: SendMessage) -> bytes:
    """Fingerprint what makes a message what it is: a retry has the same, another message hasn't."""
    parts: list[Any] = [
        command.content,
        None if command.reply_to is None else str(command.reply_to),
        command.attachments,
        command.mentions,
        command.metadata,
    ]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()
