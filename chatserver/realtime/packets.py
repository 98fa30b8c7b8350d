"""Engine.IO and Socket.IO packets: decoding what a stranger sent, encoding what many will read."""

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from engineio import packet as engine

from chatserver.kernel import content
from chatserver.realtime.errors import ProtocolViolationError

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)
RESERVED: Final = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "error"})
MAX_ATTACHMENTS: Final = 4
MAX_PACKETS: Final = 1024
SEPARATOR: Final = "\x1e"

_PACKET = re.compile(
    r"([0-6])(?:([0-9]{1,10})-)?(?:(/[^,]{0,255})(?:,|\Z))?([0-9]{1,15}(?![0-9]))?(.*)\Z", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Received:
    """A Socket.IO packet whose JSON is still text: its ack id is known even where that is bad."""

    type: int
    namespace: str
    id: int | None
    text: str
    attachments: int = 0


class Outgoing(engine.Packet):
    """An Engine.IO message that many sockets may share: encoded once, and counted in bytes.

    `ephemeral` ones are the first to go when a socket does not read.
    """

    def __init__(self, frame: bytes, *, ephemeral: bool = False) -> None:
        text = frame.decode()
        super().__init__(engine.MESSAGE, text[1:])
        self.encode_cache = text
        self.frame = frame
        self.cost = max(256, len(frame))
        self.ephemeral = ephemeral


def event_packet(namespace: str, name: str, body: bytes, *, ephemeral: bool = False) -> Outgoing:
    """Write an event with one argument that is JSON already."""
    return Outgoing(
        b'42%b,["%b",%b]' % (namespace.encode(), name.encode(), body), ephemeral=ephemeral
    )


def ack_packet(namespace: str, ack_id: int, body: bytes) -> Outgoing:
    """Write the answer to a command."""
    return Outgoing(b"43%b,%d[%b]" % (namespace.encode(), ack_id, body))


def control_packet(kind: int, namespace: str, body: bytes = b"") -> Outgoing:
    """Write a CONNECT, CONNECT_ERROR or DISCONNECT."""
    where = b"" if namespace == "/" else namespace.encode() + b","
    return Outgoing(b"4%d%b%b" % (kind, where, body))


def decode(text: str) -> Received:
    """Take a Socket.IO packet apart, all but its JSON.

    Raises:
        ProtocolViolationError: it is none.
    """
    found = _PACKET.match(text)
    if found is None:
        raise ProtocolViolationError("not a Socket.IO packet")
    kind, count, namespace, ack_id, rest = found.groups()
    packet = Received(
        int(kind),
        (namespace or "/").partition("?")[0],
        None if ack_id is None else int(ack_id),
        rest,
        int(count or 0),
    )
    if packet.type in (BINARY_EVENT, BINARY_ACK):
        if count is None or packet.attachments > MAX_ATTACHMENTS:
            raise ProtocolViolationError("too many attachments")
    elif count is not None:
        raise ProtocolViolationError("attachments where none may be")
    return packet


def check_placeholders(data: Any, attachments: int) -> None:
    """Check that a binary packet points at attachments that it announced.

    Raises:
        ProtocolViolationError: it points elsewhere.
    """
    pending = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if item.get("_placeholder"):
                at = item.get("num")
                if type(at) is not int or not 0 <= at < attachments:
                    raise ProtocolViolationError("a placeholder points nowhere")
            else:
                pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def decode_frame(data: str | bytes) -> engine.Packet:
    """Take an Engine.IO packet apart; its data stays text or bytes, whatever it looks like.

    Raises:
        ProtocolViolationError: it is none, or of a kind that only servers send.
    """
    if isinstance(data, bytes):
        return engine.Packet(engine.MESSAGE, data)
    kind = data[:1]
    if kind == "b":
        try:
            return engine.Packet(engine.MESSAGE, base64.b64decode(data[1:], validate=True))
        except (binascii.Error, ValueError) as error:
            raise ProtocolViolationError("bad base64") from error
    if kind not in {"1", "2", "3", "4", "5"}:
        raise ProtocolViolationError("not an Engine.IO packet")
    return engine.Packet(int(kind), data[1:])


def decode_payload(body: bytes) -> list[engine.Packet]:
    """Take the body of a polling POST apart.

    Raises:
        ProtocolViolationError: it is not UTF-8, has too many packets, or a bad one.
    """
    try:
        parts = body.decode().split(SEPARATOR)
    except UnicodeDecodeError as error:
        raise ProtocolViolationError("not UTF-8") from error
    if len(parts) > MAX_PACKETS:
        raise ProtocolViolationError("too many packets")
    return [decode_frame(part) for part in parts]


def parse(text: str) -> Any:
    """Parse a packet's JSON. What its members may contain is checked where a command is run.

    Raises:
        ProtocolViolationError: it is not JSON, or nested beyond any use.
    """
    return _loaded(text, None)


def parse_event(text: str) -> Any:
    """The same for an event, whose sender can be told what is wrong with its members.

    Raises:
        ProtocolViolationError: as `parse`.
        PayloadInvalidError: a member stands twice.
    """
    return _loaded(text, content.unique)


def _loaded(text: str, hook: Callable[[list[tuple[str, Any]]], Any] | None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise ProtocolViolationError("not JSON") from error
