"""The facts of an answer: its rows' own, which are in the log, and those that only pass by."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from chatserver.assistant.generation.schemas import DeltaData, ProgressData, SourcesData
from chatserver.kernel.events import NO_EFFECT, Actor, Committed, Effect, Fact, encode
from chatserver.kernel.ids import uuid7
from chatserver.transport.registry import FactSpec

FACTS: Final = (
    FactSpec(
        "message.sources",
        ("/chat",),
        SourcesData,
        sequenced=False,
        summary="What an answer is made from, before its first word; `[n]` in its text names one.",
    ),
    FactSpec(
        "message.delta",
        ("/chat",),
        DeltaData,
        sequenced=False,
        summary="A piece of an answer. On a gap, or a higher `generation`, call"
        " `assistant.catch_up`.",
    ),
    FactSpec(
        "message.progress",
        ("/chat",),
        ProgressData,
        sequenced=False,
        summary="An answer is being written though nothing flows; heals a lost last delta.",
    ),
)


def message_fact(
    name: str,
    client_id: UUID,
    members: dict[str, Any],
    actor: Actor,
    *,
    is_created: bool = False,
    effect: Effect = NO_EFFECT,
) -> Fact:
    """Announce a message as its row stands; `members` are those of the wire."""
    return Fact(
        type=name,
        client_id=client_id,
        room_id=UUID(members["room_id"]),
        actor=actor,
        data={"message": members},
        message_id=UUID(members["id"]),
        client_msg_id=members["client_msg_id"] if is_created else None,
        effect=effect,
    )


def passing(
    name: str,
    *,
    client_id: UUID,
    room_id: UUID,
    bot_id: UUID,
    ts: datetime,
    data: dict[str, Any],
    follows: int,
    audience: tuple[UUID, ...] = (),
) -> Committed:
    """Make a fact that is in no log; with an `audience` for those people alone.

    `follows`: the seq of the answer's `message.created`, which nobody may see later than this.
    """
    body = encode(
        type=name,
        id=uuid7(),
        room_id=room_id,
        epoch=None,
        seq=None,
        ts=ts,
        actor=Actor("bot", str(bot_id)),
        data=data,
    )
    return Committed(
        client_id=client_id,
        room_id=room_id,
        seq=None,
        type=name,
        body=body,
        effect=Effect(follows=follows),
        audience=audience,
    )
