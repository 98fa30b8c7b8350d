"""The gapless log of every room: the one place outside `chat_store` that gives out a `seq`."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel

from chatserver.kernel.events import Committed, Fact, encode
from chatserver.kernel.tables import json_column, time_column, uuid_column


class RoomEvent(SQLModel, table=True):
    """One fact of a room. `data` is null where the fact is about a message or the room itself."""

    __tablename__ = "room_event"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
        # The change list reads it by time; with all it needs in the index.
        Index("ix_room_event_created_at", "created_at", "room_id", "seq"),
    )

    room_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    id: UUID = Field(sa_column=uuid_column())
    type: str = Field(max_length=32)
    actor_type: str = Field(max_length=8)
    actor_id: str | None = Field(default=None, max_length=128)
    message_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    data: dict[str, Any] | None = Field(default=None, sa_column=json_column(None, nullable=True))
    effect: dict[str, Any] | None = Field(default=None, sa_column=json_column(None, nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


_TAKE = text(
    "update room set last_seq = last_seq + :count, last_event_at = clock_timestamp()"
    " where id = :room and client_id = :client"
    " returning last_seq, epoch, clock_timestamp() as ts"
)


async def append(
    session: AsyncSession, facts: Sequence[Fact], generation: int
) -> tuple[list[Committed], dict[UUID, int]]:
    """Number the sequenced facts, write them to the log and encode all of them.

    Gives the facts as they are shown, and the seqs by the facts' ids.

    The update of the room's row holds its lock until the commit, so seq order is commit order.
    Rooms are taken in id order: whoever needs several can't wait for one another in a circle.
    """
    committed: list[Committed] = []
    seqs: dict[UUID, int] = {}
    numbered = sorted(
        (fact for fact in facts if fact.sequenced and fact.room_id is not None), key=_room_of
    )
    for room_id, group in groupby(numbered, key=_room_of):
        batch = list(group)
        taken = await session.execute(
            _TAKE, {"count": len(batch), "room": room_id, "client": batch[0].client_id}
        )
        last_seq, epoch, ts = taken.one()
        for seq, fact in enumerate(batch, start=last_seq - len(batch) + 1):
            seqs[fact.id] = seq
            session.add(_row(fact, seq, ts))
            committed.append(_encoded(fact, seq, f"{generation}.{epoch}", ts))
    loose = [fact for fact in facts if not (fact.sequenced and fact.room_id is not None)]
    if loose:
        ts = (await session.execute(text("select clock_timestamp()"))).scalar_one()
        committed.extend(_encoded(fact, None, None, ts) for fact in loose)
    return committed, seqs


def _room_of(fact: Fact) -> UUID:
    assert fact.room_id is not None  # noqa: S101 - filtered by the caller
    return fact.room_id


def _row(fact: Fact, seq: int, ts: datetime) -> RoomEvent:
    refers = fact.about_room or fact.message_id is not None
    kept = {name: value for name, value in fact.data.items() if name not in fact.unlogged}
    return RoomEvent(
        room_id=_room_of(fact),
        seq=seq,
        client_id=fact.client_id,
        id=fact.id,
        type=fact.type,
        actor_type=fact.actor.type,
        actor_id=fact.actor.id,
        message_id=fact.message_id,
        data=None if refers else kept,
        effect=fact.effect.as_json(),
        created_at=ts,
    )


def _encoded(fact: Fact, seq: int | None, epoch: str | None, ts: datetime) -> Committed:
    body = encode(
        type=fact.type,
        id=fact.id,
        room_id=fact.room_id,
        epoch=epoch,
        seq=seq,
        ts=ts,
        actor=fact.actor,
        data=fact.data,
        client_msg_id=fact.client_msg_id,
    )
    return Committed(
        client_id=fact.client_id,
        room_id=fact.room_id,
        seq=seq,
        type=fact.type,
        body=body,
        effect=fact.effect,
        audience=fact.audience,
    )
