"""What travels between nodes: a small binary envelope around bytes that are final already.

    target 16 | mac 16 | version 1 | kind 1 | origin 8 | body

`target` is the room or the user it is for and stands first, so that a node drops what is for
others after one look-up. The MAC covers everything else, and the target.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from uuid import UUID

import orjson

from chatserver.infra import tracing
from chatserver.kernel.events import Committed, Effect
from chatserver.realtime.ports import Changes, Closing

VERSION: Final = 1
MAX_BYTES: Final = 64 * 1024
CHANGES_PER_ENVELOPE: Final = 2000
NO_TARGET: Final = bytes(16)

_MAC_AT = 16
_HEAD_AT = 32
_HEAD = struct.Struct(">BB8s")
_FACT = struct.Struct(">16s16sqBIH")
_CHANGE = struct.Struct(">16sq")
_NONE = -1


class Kind(IntEnum):
    FACT = 1
    REFERENCE = 2
    CLOSING = 3
    CHANGED_ROOMS = 4
    CHANGED_USERS = 5
    HEARTBEAT = 6
    HELLO = 7
    WELCOME = 8
    TYPING = 9
    ASK = 10
    ANSWER = 11


class ForgedError(Exception):
    """An envelope that nobody with our key wrote, or that doesn't parse: ignored and counted."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope whose origin is one of us; `body` is still as it came."""

    kind: Kind
    origin: bytes
    target: UUID
    body: bytes


class Seal:
    """Writes and checks envelopes of one deployment."""

    def __init__(self, key: bytes, origin: bytes) -> None:
        self._keyed = hashlib.blake2b(key=key[:64], digest_size=16, person=b"chatserver.bus.1")
        self.origin = hashlib.blake2b(origin, digest_size=8).digest()

    def close(self, kind: Kind, target: bytes, body: bytes) -> bytes:
        rest = _HEAD.pack(VERSION, kind, self.origin) + body
        return target + self._mac(target, rest) + rest

    def open(self, data: bytes) -> Opened:
        """Check an envelope.

        Raises:
            ForgedError: it isn't ours.
        """
        if len(data) < _HEAD_AT + _HEAD.size:
            raise ForgedError("too short")
        target, mac, rest = data[:_MAC_AT], data[_MAC_AT:_HEAD_AT], data[_HEAD_AT:]
        if not hmac.compare_digest(mac, self._mac(target, rest)):
            raise ForgedError("wrong authentication")
        version, kind, origin = _HEAD.unpack_from(rest)
        if version != VERSION:
            raise ForgedError("another version")
        try:
            return Opened(Kind(kind), origin, UUID(bytes=target), rest[_HEAD.size :])
        except ValueError as error:
            raise ForgedError("an unknown kind") from error

    def _mac(self, target: bytes, rest: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(target)
        mac.update(rest)
        return mac.digest()


def target_of(data: bytes) -> UUID | None:
    """Read whom an envelope is for, before anything else is looked at."""
    return UUID(bytes=data[:16]) if len(data) >= _HEAD_AT else None


def fact_body(fact: Committed) -> bytes:
    effect = fact.effect.as_json()
    if tracing.is_on():
        # Beside the effect, where a node of the version before looks for what it knows alone.
        effect = {**(effect or {}), **tracing.carried()}
    packed = orjson.dumps(effect) if effect else b""
    return b"".join(
        (
            _FACT.pack(
                fact.client_id.bytes,
                fact.room_id.bytes if fact.room_id is not None else NO_TARGET,
                _NONE if fact.seq is None else fact.seq,
                len(fact.type),
                len(packed),
                len(fact.audience),
            ),
            fact.type.encode(),
            packed,
            *(user.bytes for user in fact.audience),
            fact.body,
        )
    )


def read_fact(body: bytes) -> Committed:
    client, room, seq, type_size, effect_size, audience_size = _FACT.unpack_from(body)
    type_end = _FACT.size + type_size
    effect_end = type_end + effect_size
    audience_end = effect_end + 16 * audience_size
    return Committed(
        client_id=UUID(bytes=client),
        room_id=None if room == NO_TARGET else UUID(bytes=room),
        seq=None if seq == _NONE else seq,
        type=body[_FACT.size : type_end].decode(),
        body=body[audience_end:],
        effect=Effect.from_json(orjson.loads(body[type_end:effect_end]) if effect_size else None),
        audience=tuple(
            UUID(bytes=body[at : at + 16]) for at in range(effect_end, audience_end, 16)
        ),
    )


def trace_of(body: bytes) -> str | None:
    """Give the `traceparent` with which a fact was packed."""
    *_, type_size, effect_size, _ = _FACT.unpack_from(body)
    start = _FACT.size + type_size
    return tracing.taken_from(orjson.loads(body[start : start + effect_size] or b"{}"))


def reference_body(room_id: UUID, seq: int) -> bytes:
    return _CHANGE.pack(room_id.bytes, seq)


def read_reference(body: bytes) -> tuple[UUID, int]:
    room, seq = _CHANGE.unpack(body)
    return UUID(bytes=room), seq


def closing_body(closing: Closing) -> bytes:
    members = {
        "code": closing.code,
        "reason": closing.reason,
        "reconnect": closing.reconnect,
        "after_ms": closing.after_ms,
        "kid": closing.kid,
        "user_id": closing.user_id,
        "client_id": closing.client_id,
    }
    if closing.token is not None:
        # Only then: a node of the version before knows no such member.
        members["token"] = closing.token
    # asyncpg's ids are a subclass of UUID, which orjson does not take for one.
    return orjson.dumps(members, default=str)


def read_closing(body: bytes) -> Closing:
    members = orjson.loads(body)
    for name in ("user_id", "client_id"):
        members[name] = None if members[name] is None else UUID(members[name])
    return Closing(**members)


def change_bodies(changes: Changes) -> Iterator[tuple[Kind, bytes]]:
    """Split a change list into envelopes of a size that the bus carries."""
    for kind, found in ((Kind.CHANGED_ROOMS, changes.rooms), (Kind.CHANGED_USERS, changes.users)):
        packed = [_CHANGE.pack(each.bytes, number) for each, number in found.items()]
        for start in range(0, len(packed), CHANGES_PER_ENVELOPE):
            yield kind, b"".join(packed[start : start + CHANGES_PER_ENVELOPE])
    if not changes.rooms and not changes.users:
        # Even an empty list says that somebody looked.
        yield Kind.CHANGED_ROOMS, b""


def read_changes(kind: Kind, body: bytes) -> Changes:
    found = {UUID(bytes=each): number for each, number in _CHANGE.iter_unpack(body)}
    return Changes(rooms=found) if kind is Kind.CHANGED_ROOMS else Changes(users=found)
