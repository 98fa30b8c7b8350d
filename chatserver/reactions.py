"""The one table: what is done later about a fact, whatever dies meanwhile.

What callers see live needs no entry here: every committed fact is shown, and the log repairs it. An
outbox row is written only for the types that stand in `LATER`.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import orjson

from chatserver.infra import jobs
from chatserver.infra.outbox import OutboxRow
from chatserver.infra.unit_of_work import UnitOfWork

Reaction: TypeAlias = Callable[[UnitOfWork, OutboxRow], Awaitable[None]]


async def purge_room(work: UnitOfWork, row: OutboxRow) -> None:
    """Plan the deletion of what a deleted room leaves behind."""
    await jobs.plan(
        work.session,
        jobs.PURGE_ROOM,
        dedupe=str(row.room_id),
        client_id=row.client_id,
        payload=orjson.dumps({"room_id": str(row.room_id)}).decode(),
    )


LATER: Final[dict[str, tuple[Reaction, ...]]] = {
    "room.deleted": (purge_room,),
}


def has_later(fact_type: str) -> bool:
    """Tell whether a fact needs an outbox row."""
    return fact_type in LATER
