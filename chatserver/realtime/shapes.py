"""An event's other shapes, made from its Socket.IO frame once, whoever asks first."""

from typing import Final

from chatserver.realtime.packets import Outgoing

_MESSAGE: Final = len(b"42")


def parts(frame: bytes) -> tuple[bytes, bytes, bytes]:
    """Take an event's frame apart: namespace, name, and its one argument, which is JSON."""
    namespace, _, rest = frame.partition(b",")
    name, _, body = rest[2:-1].partition(b'",')
    return namespace[_MESSAGE:], name, body


def plain(packet: Outgoing) -> bytes:
    """Give an event as a frame of the plain WebSocket; kept on the packet for the next socket."""
    known: bytes | None = getattr(packet, "plain", None)
    if known is None:
        known = b'{"ns":"%b","event":"%b","data":%b}' % parts(packet.frame)
        packet.plain = known
    return known


def with_offset(packet: Outgoing, offset: bytes) -> Outgoing:
    """Give an event with a second argument: how far a client that can recover has come."""
    return Outgoing(b'%b,"%b"]' % (packet.frame[:-1], offset), ephemeral=packet.ephemeral)
