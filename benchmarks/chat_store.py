"""How many sends a second does `chat_store` store, and how long does one call take?

Writers on connections of their own call the function with batches to random rooms, durably (every
commit is flushed to the disk). Prints sends per second and the p50 and p99 of a call. Run it as
`python -m benchmarks.chat_store [--writers 4] [--batch 32] [--rooms 200] [--seconds 5] [--json]`.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from uuid import UUID

import asyncpg

from chatserver.chat.events import Draft
from chatserver.chat.repository import ChatRepository
from chatserver.infra.database import Database
from chatserver.kernel.ids import uuid7
from tests.support.servers import Servers

MEMBERS = 10
TEXT = "The quick brown fox jumps over the lazy dog. " * 2

_SEED = """
insert into client (id, slug, name, status) values ('{client}', 'bench', 'bench', 'active');
insert into app_user (id, client_id, external_id)
  select gen_random_uuid(), '{client}', 'user-' || n from generate_series(1, {users}) n;
insert into room (id, client_id, type, history, is_active, epoch, members_count)
  select gen_random_uuid(), '{client}', 'group', 'all', true, 1, {members}
  from generate_series(1, {rooms});
insert into member (room_id, user_id, client_id, role, is_muted, is_favorite, notification_level)
  select r.id, u.id, '{client}', 'member', false, false, 'mentions'
  from (select id, row_number() over () as n from room) r
  join (select id, row_number() over () as n from app_user) u
    on (u.n + r.n * 7) % {users} < {members};
"""


async def measure(
    admin_url: str,
    url: str,
    *,
    writers: int,
    batch: int,
    rooms: int,
    all_rooms: int,
    seconds: float,
) -> dict[str, float | int]:
    client = uuid7()
    admin = await asyncpg.connect(admin_url)
    await admin.execute(
        _SEED.format(client=client, rooms=all_rooms, users=all_rooms * 2, members=MEMBERS)
    )
    await admin.execute("analyze")
    seats = await admin.fetch(
        "select room_id, user_id from member where room_id in (select id from room limit $1)", rooms
    )
    by_room: dict[UUID, list[UUID]] = {}
    for seat in seats:
        by_room.setdefault(seat["room_id"], []).append(seat["user_id"])
    database = Database(url, name="benchmark", fast_pool_size=writers)
    store = ChatRepository(database)
    took: list[float] = []
    stored = busy = 0

    async def write(own: list[UUID], until: float) -> None:
        nonlocal stored, busy
        while time.perf_counter() < until:
            drafts = [_draft(client, room, by_room[room]) for room in random.choices(own, k=batch)]
            started = time.perf_counter()
            outcomes = await store.store(drafts, wait=False)
            took.append((time.perf_counter() - started) * 1000)
            stored += sum(outcome.outcome == "stored" for outcome in outcomes)
            busy += sum(outcome.outcome == "busy" for outcome in outcomes)

    # As in one process, a room is never in two calls at once.
    names = list(by_room)
    parts = [names[at::writers] for at in range(writers)]
    await asyncio.gather(*(write(part, time.perf_counter() + 1) for part in parts))
    took.clear()
    stored = busy = 0
    begun = time.perf_counter()
    await asyncio.gather(*(write(part, begun + seconds) for part in parts))
    spent = time.perf_counter() - begun
    cuts = statistics.quantiles(took, n=100)
    await admin.close()
    await database.close()
    return {
        "writers": writers,
        "batch": batch,
        "rooms": rooms,
        "rooms_in_all": all_rooms,
        "sends_per_s": round(stored / spent),
        "call_p50_ms": round(cuts[49], 2),
        "call_p99_ms": round(cuts[98], 2),
        "busy": busy,
    }


def _draft(client: UUID, room: UUID, members: list[UUID]) -> Draft:
    user = random.choice(members)
    return Draft(
        client_id=client,
        room_id=room,
        user_id=user,
        sender="user",
        sender_id="bench",
        sender_key=str(user),
        client_msg_id=uuid7().hex,
        body_hash=b"x" * 32,
        content=TEXT,
        reply_to=None,
        attachments=[],
        mentions=[],
        metadata={},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rooms", type=int, default=200, help="rooms that are written to")
    parser.add_argument("--all-rooms", type=int, default=10_000, help="rooms in the database")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with Servers(durable=True) as servers:
        database = servers.fresh_database()
        found = asyncio.run(
            measure(
                database.admin_url,
                database.app_url,
                writers=chosen.writers,
                batch=chosen.batch,
                rooms=chosen.rooms,
                all_rooms=chosen.all_rooms,
                seconds=chosen.seconds,
            )
        )
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for name, value in found.items():
        sys.stdout.write(f"{name:>14}  {value}\n")


if __name__ == "__main__":
    main()
