"""Engine.IO and Socket.IO packets: decoding what a stranger sent, encoding what many will read."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

import orjson

from chatserver.kernel import content
from chatserver.realtime.errors import ProtocolViolationError

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)
RESERVED: Final = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "error"})
MAX_ATTACHMENTS: Final = 4
MAX_PACKETS: Final = 1024
SEPARATOR: Final = "\x1e"
# An empty close frame: what the reference server sends, and browsers report as 1005.
CLOSE_FRAME: Final = b"\x88\x00"

_FROM_CLIENTS = frozenset("12345")
_TEXT, _BINARY = 0x81, 0x82
_LEAST: Final = 256  # even an empty packet takes room
_LONG = Struct(">BBH").pack
_LONGER = Struct(">BBQ").pack
_PACKET = re.compile(
    r"([0-6])(?:([0-9]{1,10})-)?(?:(/[^,]{0,255})(?:,|\Z))?([0-9]{1,15}(?![0-9]))?(.*)\Z", re.DOTALL
)


@dataclass(slots=True)
class Received:
    """A Socket.IO packet whose JSON is still text: its ack id is known even where that is bad."""

    type: int
    namespace: str
    id: int | None
    text: str
    attachments: int = 0


def websocket_frame(payload: bytes, first: int = _TEXT) -> bytes:
    """Put the header of an unmasked, unfragmented WebSocket frame in front."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - RFC 6455, 5.2
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return _LONG(first, 126, size) + payload
    return _LONGER(first, 127, size) + payload


class Outgoing:
    """An Engine.IO message that many sockets may share: encoded once, and counted in bytes.

    `frame` is the packet itself, `wire` the WebSocket frames it takes, headers and all, `polled`
    what a poll is answered with. `ephemeral` ones are the first to go when a socket does not read.
    """

    __slots__ = ("cost", "count", "ephemeral", "frame", "plain", "polled", "wire")

    plain: bytes  # its shape on the plain WebSocket, once somebody needed it

    def __init__(
        self, frame: bytes, *, ephemeral: bool = False, attachments: Sequence[bytes] = ()
    ) -> None:
        self.frame = self.polled = frame
        self.wire = websocket_frame(frame)
        self.count = 1
        if attachments:
            self.count += len(attachments)
            self.wire = b"".join(
                (self.wire, *(websocket_frame(each, _BINARY) for each in attachments))
            )
            self.polled = b"\x1e".join((frame, *(b"b" + base64.b64encode(a) for a in attachments)))
        self.cost = max(_LEAST, len(self.wire))
        self.ephemeral = ephemeral


PING: Final = Outgoing(b"2")
PROBED: Final = Outgoing(b"3probe")
NOOP: Final = Outgoing(b"6")
CLOSE: Final = Outgoing(b"1")


def message_packet(data: str | bytes) -> Outgoing:
    """Write an Engine.IO message as it is: text, or bytes in a frame of their own."""
    if isinstance(data, str):
        return Outgoing(b"4" + data.encode())
    packet = Outgoing(b"")
    packet.frame = packet.polled = b"b" + base64.b64encode(data)
    packet.wire = websocket_frame(data, _BINARY)
    packet.cost = max(_LEAST, len(packet.wire))
    return packet


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


def data_packet(kind: int, namespace: str, data: list[Any], ack_id: int | None = None) -> Outgoing:
    """Write an EVENT or ACK of any Python data; bytes in it travel as attachments.

    Raises:
        TypeError: JSON can't say it.
    """
    attachments: list[bytes] = []

    def replace(item: Any) -> Any:
        if isinstance(item, bytes | bytearray | memoryview):
            attachments.append(bytes(item))
            return {"_placeholder": True, "num": len(attachments) - 1}
        raise TypeError(f"{type(item).__name__} is not JSON")

    try:
        body = orjson.dumps(data, replace, orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # What orjson refuses and JSON does not: lone surrogates, integers of any size.
        attachments.clear()
        body = json.dumps(data, separators=(",", ":"), default=replace).encode()
    where = b"" if namespace == "/" else namespace.encode() + b","
    number = b"" if ack_id is None else b"%d" % ack_id
    if attachments:
        head = b"4%d%d-" % (kind + BINARY_EVENT - EVENT, len(attachments))
    else:
        head = b"4%d" % kind
    return Outgoing(b"".join((head, where, number, body)), attachments=attachments)


def decode(text: str, *, max_attachments: int = MAX_ATTACHMENTS) -> Received:
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
        if count is None or packet.attachments > max_attachments:
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


def decode_frame(data: str | bytes) -> tuple[str, str | bytes]:
    """Take an Engine.IO packet apart into its type and data, which stays text or bytes.

    Raises:
        ProtocolViolationError: it is none, or of a kind that only servers send.
    """
    if isinstance(data, bytes):
        return "4", data
    kind = data[:1]
    if kind == "b":
        try:
            return "4", base64.b64decode(data[1:], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolViolationError("bad base64") from error
    if kind not in _FROM_CLIENTS:
        raise ProtocolViolationError("not an Engine.IO packet")
    return kind, data[1:]


def split_payload(body: bytes, *, max_packets: int | None = MAX_PACKETS) -> list[str]:
    """Take the body of a polling POST apart into packets.

    Raises:
        ProtocolViolationError: it is not UTF-8, or has too many packets.
    """
    try:
        parts = body.decode().split(SEPARATOR)
    except UnicodeDecodeError as error:
        raise ProtocolViolationError("not UTF-8") from error
    if max_packets is not None and len(parts) > max_packets:
        raise ProtocolViolationError("too many packets")
    return parts


def restore(data: Any, attachments: Sequence[bytes]) -> Any:
    """Put attachments where their placeholders stand; `check_placeholders` has seen them."""
    if isinstance(data, list):
        return [restore(item, attachments) for item in data]
    if isinstance(data, dict):
        if data.get("_placeholder"):
            return attachments[data["num"]]
        return {key: restore(item, attachments) for key, item in data.items()}
    return data


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
    parsed = content.plain(text)
    return _loaded(text, content.unique) if parsed is None else parsed


def _loaded(text: str, hook: Callable[[list[tuple[str, Any]]], Any] | None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise ProtocolViolationError("not JSON") from error


def parse_strict(text: str) -> Any:
    """Parse JSON as JavaScript does: no NaN and no Infinity, but lone surrogates.

    Raises:
        ProtocolViolationError: it is not JSON, or nested beyond any use.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        try:
            return json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ProtocolViolationError("not JSON") from error


def _no_constant(name: str) -> float:
    raise ValueError(name)
