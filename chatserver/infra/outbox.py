"""What must follow a fact later, whatever dies meanwhile: rows of the fact's own transaction."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Identity, Integer, String, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel

from chatserver.infra import tracing
from chatserver.infra.statements import Statements
from chatserver.kernel.events import Fact
from chatserver.kernel.tables import json_column, time_column, uuid_column

MOST_ATTEMPTS: Final = 20
LONGEST_PAUSE_S: Final = 300


class OutboxRow(SQLModel, table=True):
    """A committed fact for which a later reaction exists. Deleted when its reactions are planned.

    One whose reactions fail waits for `due_at`, and after many tries it is set aside: to try it
    again, set `set_aside_at` to null.
    """

    __tablename__ = "outbox"
    __table_args__ = (ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),)

    id: int = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    client_id: UUID = Field(sa_column=uuid_column())
    room_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    fact_id: UUID = Field(sa_column=uuid_column())
    type: str = Field(max_length=32)
    # Empty where the fact is about a message or a room: it is read as that is by then.
    data: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # The fact's place in its room's log, if it has one.
    seq: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    message_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    actor_type: str = Field(
        default="system", sa_column=Column(String(8), nullable=False, server_default="system")
    )
    actor_id: str | None = Field(default=None, max_length=128)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    due_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    error: str | None = None
    set_aside_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


# Whether somebody follows a type is read here, inside the transaction: an endpoint that was
# committed before this fact gets it, whichever node the fact entered by.
_ADD = text(
    "insert into outbox"
    "  (client_id, room_id, fact_id, type, data, seq, message_id, actor_type, actor_id)"
    " select f.client_id, f.room_id, f.fact_id, f.type, f.data, f.seq, f.message_id, f.actor_type,"
    "   f.actor_id"
    " from jsonb_to_recordset(cast(:facts as jsonb)) as f ("
    "   place int, always boolean, client_id uuid, room_id uuid, fact_id uuid, type text,"
    "   data jsonb, seq bigint, message_id uuid, actor_type text, actor_id text)"
    " join client c on c.id = f.client_id"
    " where f.always or f.type = any (c.followed)"
    "   or (f.type = 'message.created' and exists"
    "     (select from room r where r.id = f.room_id and r.bots > 0))"
    " order by f.place"
)


async def add(
    session: AsyncSession,
    facts: Sequence[Fact],
    seqs: Mapping[UUID, int],
    always: Callable[[str], bool],
) -> bool:
    """Keep those facts for which there is a later reaction; True when there is one.

    `seqs`: the places in the log, by the facts' ids. `always` tells types that have one in any
    case; the others have one where the client follows them, or bots read the room.
    """
    carried = tracing.carried()
    kept = await session.execute(
        _ADD,
        {
            "facts": orjson.dumps(
                [
                    {
                        "place": place,
                        "always": always(fact.type),
                        "client_id": str(fact.client_id),
                        "room_id": None if fact.room_id is None else str(fact.room_id),
                        "fact_id": str(fact.id),
                        "type": fact.type,
                        "data": carried | ({} if fact.about_room or fact.message_id else fact.data),
                        "seq": seqs.get(fact.id),
                        "message_id": None if fact.message_id is None else str(fact.message_id),
                        "actor_type": fact.actor.type,
                        "actor_id": fact.actor.id,
                    }
                    for place, fact in enumerate(facts)
                ],
                default=str,
            ).decode()
        },
    )
    return bool(kept.rowcount)  # type: ignore[attr-defined]  # an insert gives a cursor result


# Of the newest rows alone: there is no index on this, and an old row was dispatched or waits. One
# that is being dispatched just now goes without.
_CARRY = (
    "with given as (select * from unnest($1::uuid[], $2::text[]) as g (fact_id, traceparent)),"
    " held as materialized (select o.id, g.traceparent from outbox o"
    "   join given g on g.fact_id = o.fact_id"
    "   where o.id > (select coalesce(max(id), 0) from outbox) - 10000"
    "   for update of o skip locked)"
    " update outbox o set data = o.data || jsonb_build_object($3::text, h.traceparent)"
    " from held h where o.id = h.id"
)


async def carry(statements: Statements, traces: Mapping[UUID, str]) -> None:
    """Have rows that a database function wrote carry traces on, by their facts' ids.

    Only best effort: a row that is dispatched before this loses its trace, and nothing else.
    """
    await statements.execute(_CARRY, list(traces), list(traces.values()), tracing.CARRIED)


# Materialized: as a plain sub-select it may be run once per row and then take more than the limit.
_TAKE = text(
    "with due as materialized (select id from outbox where set_aside_at is null"
    "   and (due_at is null or due_at <= statement_timestamp())"
    "   and (cast(:only as bigint) is null or id = :only)"
    "   order by id limit :limit for update skip locked)"
    " delete from outbox using due where outbox.id = due.id"
    " returning outbox.id, client_id, room_id, fact_id, type, data, seq, message_id, actor_type,"
    "  actor_id, created_at"
)
_PUT_OFF = text(
    "update outbox set attempts = attempts + 1, error = :error,"
    "  due_at = clock_timestamp() + make_interval(secs => least(2 ^ attempts, :longest)),"
    "  set_aside_at = case when attempts + 1 >= :most then clock_timestamp() end"
    " where id = :id returning set_aside_at is not null as is_set_aside"
)


async def take(session: AsyncSession, *, limit: int, only: int | None = None) -> list[OutboxRow]:
    """Take the oldest rows (or that one) for this transaction; a rollback gives them back."""
    taken = await session.execute(_TAKE, {"limit": limit, "only": only})
    rows = [OutboxRow(**row) for row in taken.mappings()]
    return sorted(rows, key=lambda row: row.id)


async def put_off(session: AsyncSession, row_id: int, *, error: str) -> bool:
    """Let a row whose reactions failed wait, so that the others go on. True: it was set aside."""
    put = await session.execute(
        _PUT_OFF,
        {"id": row_id, "error": error, "longest": LONGEST_PAUSE_S, "most": MOST_ATTEMPTS},
    )
    return bool(put.scalar_one_or_none())
