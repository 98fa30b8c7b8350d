"""Facts: what happened, as services record it, as the log keeps it and as callers see it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import orjson

from chatserver.kernel.clock import rfc3339
from chatserver.kernel.ids import uuid7

ActorType: TypeAlias = Literal["user", "bot", "system", "client"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it, named as on the wire: a user by external id, the application by nothing."""

    type: ActorType
    id: str | None = None


SYSTEM = Actor("system")


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fact does to subscriptions, by the server's own user ids.

    Applied at the fact's place in the room's order: who enters or leaves still sees the fact.
    The other three are of answers, each named by the seq of the fact that began it: an unsequenced
    fact that `follows` it is shown after that one only, and not after one that `ends` it, unless
    another `resumes` it.
    """

    entered: tuple[UUID, ...] = ()
    left: tuple[UUID, ...] = ()
    closed: bool = False
    follows: int | None = None
    ends: int | None = None
    resumes: int | None = None

    def as_json(self) -> dict[str, Any] | None:
        """Give the form that log and bus keep, or None when there is nothing to do."""
        if self is NO_EFFECT:
            return None
        members: dict[str, Any] = {}
        if self.entered:
            members["entered"] = [str(user) for user in self.entered]
        if self.left:
            members["left"] = [str(user) for user in self.left]
        if self.closed:
            members["closed"] = True
        for name in ("follows", "ends", "resumes"):
            seq = getattr(self, name)
            if seq is not None:
                members[name] = seq
        return members or None

    @classmethod
    def from_json(cls, members: dict[str, Any] | None) -> "Effect":
        if not members:
            return NO_EFFECT
        return cls(
            tuple(UUID(user) for user in members.get("entered", ())),
            tuple(UUID(user) for user in members.get("left", ())),
            bool(members.get("closed", False)),
            members.get("follows"),
            members.get("ends"),
            members.get("resumes"),
        )


NO_EFFECT = Effect()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact that a service records inside its transaction.

    `data` is the wire's `data`. A sequenced fact gets its `seq` when the unit of work ends; one
    without goes to whoever listens and is not kept. `audience` are users who must hear of it even
    where their node does not listen to the room (whoever enters or leaves, always).
    """

    type: str
    client_id: UUID
    room_id: UUID | None
    actor: Actor
    data: dict[str, Any]
    sequenced: bool = True
    effect: Effect = NO_EFFECT
    audience: tuple[UUID, ...] = ()
    # A fact about a message or about the room itself is replayed as that is by then: the log then
    # keeps a reference and no data, so that nothing deleted or renamed comes back.
    message_id: UUID | None = None
    about_room: bool = False
    # Of a message that was sent: by it the sender's devices know what they show already.
    client_msg_id: str | None = None
    # Members of `data` that the log leaves out: a replay gives them as they are by then.
    unlogged: frozenset[str] = frozenset()
    id: UUID = field(default_factory=uuid7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A fact that is true by now: `body` is its wire JSON, encoded once for all who see it.

    `room_id` is None for a fact about a person alone; then `audience` names who sees it.
    """

    client_id: UUID
    room_id: UUID | None
    seq: int | None
    type: str
    body: bytes
    effect: Effect = NO_EFFECT
    audience: tuple[UUID, ...] = ()


def encode(  # noqa: PLR0913 - a fact has that many members
    *,
    type: str,  # noqa: A002 - the wire's own name
    id: UUID,  # noqa: A002
    room_id: UUID | None,
    epoch: str | None,
    seq: int | None,
    ts: datetime,
    actor: Actor,
    data: Any,  # noqa: ANN401 - JSON of whatever shape the fact has
    client_msg_id: str | None = None,
    extra: dict[str, Any] | None = None,
) -> bytes:
    """Write a fact as contract section 4 has it; members that don't apply are left out."""
    members: dict[str, Any] = {"v": 1, "type": type, "id": id}
    if room_id is not None:
        members["room_id"] = room_id
    if seq is not None:
        members["epoch"] = epoch
        members["seq"] = seq
    members["ts"] = rfc3339(ts)
    members["actor"] = {"type": actor.type, "id": actor.id}
    members["data"] = data
    if client_msg_id is not None:
        members["client_msg_id"] = client_msg_id
    if extra:
        members.update(extra)
    return orjson.dumps(members, default=_plain)


def _plain(value: object) -> str:
    # asyncpg's ids are a subclass of UUID, which orjson does not take for one.
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value).__name__)
