"""The one table: what is done later about a fact, whatever dies meanwhile.

What callers see live needs no entry here: every committed fact is shown, and the log repairs it. An
outbox row is written only where a reaction exists: always for the types of `ALWAYS`, for others
where an endpoint of the client follows them (`client.followed`), and for messages where bots read
along (`room.bots`).
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import orjson

from chatserver.infra import jobs
from chatserver.infra.job_kinds import CONSIDER_ANSWER, PURGE_ROOM
from chatserver.infra.outbox import OutboxRow
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.webhooks.endpoints.schemas import FACT_TYPES

Reaction: TypeAlias = Callable[[UnitOfWork, OutboxRow], Awaitable[None]]


async def purge_room(work: UnitOfWork, row: OutboxRow) -> None:
    """Plan the deletion of what a deleted room leaves behind."""
    await jobs.plan(
        work.session,
        PURGE_ROOM,
        dedupe=str(row.room_id),
        client_id=row.client_id,
        payload=orjson.dumps({"room_id": str(row.room_id)}).decode(),
    )


async def consider_answer(work: UnitOfWork, row: OutboxRow) -> None:
    """Plan a look at what a person said where bots read along. Bots never answer bots."""
    if row.actor_type != "user" or row.room_id is None or row.message_id is None:
        return
    await jobs.plan(
        work.session,
        CONSIDER_ANSWER,
        dedupe=str(row.message_id),
        client_id=row.client_id,
        payload=orjson.dumps(
            {"room_id": str(row.room_id), "message_id": str(row.message_id)}
        ).decode(),
    )


LATER: Final[dict[str, tuple[Reaction, ...]]] = {
    # Whatever endpoints can follow is planned for them: `wiring/webhooks.py` does that for a whole
    # batch of facts at once, beside what stands here.
    **dict.fromkeys(FACT_TYPES, ()),
    "message.created": (consider_answer,),
    "room.deleted": (purge_room,),
}


# Their reactions don't depend on what the client has set up.
ALWAYS: Final = frozenset({"room.deleted"})


def has_later(fact_type: str) -> bool:
    """Tell whether a fact needs an outbox row in any case."""
    return fact_type in ALWAYS
