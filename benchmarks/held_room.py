"""One room's row is held by another session for 8 s: what does that cost sends to the other rooms?

Prints the p50 and p99 of sends to other rooms before and while the row is held, and what became of
the sends to the held room. Run it as `python -m benchmarks.held_room [--json]`.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from uuid import UUID

import asyncpg

from chatserver.chat.events import Draft, Outcome
from chatserver.chat.repository import ChatRepository
from chatserver.chat.writer import MessageWriter
from chatserver.infra.database import Database
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.ids import uuid7
from tests.support.servers import Servers

ROOMS = 50
SENDERS = 32
HELD_SHARE = 20  # every 20th send goes to the held room: 5 % of the traffic
QUIET_S = 4.0
HELD_S = 8.0

_SEED = """
insert into client (id, slug, name, status) values ($1, 'bench', 'bench', 'active');
"""


async def measure(url: str, admin_url: str) -> dict[str, float | int]:
    client = uuid7()
    rooms = [uuid7() for _ in range(ROOMS)]
    admin = await asyncpg.connect(admin_url)
    await admin.execute(_SEED.replace("$1", f"'{client}'"))
    await admin.executemany(
        "insert into room (id, client_id, type, history, is_active, epoch, members_count)"
        " values ($1, $2, 'group', 'all', true, 1, 0)",
        [(room, client) for room in rooms],
    )
    database = Database(url, name="benchmark")
    writer = MessageWriter(ChatRepository(database), lambda _draft, _outcome: None)
    others: list[float] = []
    held: list[str] = []
    stop = asyncio.Event()

    async def send(number: int) -> None:
        count = number
        while not stop.is_set():
            count += SENDERS
            is_held = count % HELD_SHARE == 0
            room = rooms[0] if is_held else rooms[1 + count % (ROOMS - 1)]
            started = time.perf_counter()
            outcome = await _write(writer, client, room)
            if is_held:
                held.append(outcome)
            else:
                others.append((time.perf_counter() - started) * 1000)

    tasks = [asyncio.create_task(send(number)) for number in range(SENDERS)]
    await asyncio.sleep(QUIET_S)
    quiet = list(others)
    others.clear()
    held.clear()
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("select 1 from room where id = $1 for update", rooms[0])
    await asyncio.sleep(HELD_S)
    while_held = list(others)
    await transaction.rollback()
    stop.set()
    await asyncio.gather(*tasks)
    await writer.close()
    await database.close()
    await admin.close()
    return {
        "quiet_sends": len(quiet),
        "quiet_p50_ms": _quantile(quiet, 50),
        "quiet_p99_ms": _quantile(quiet, 99),
        "held_sends_elsewhere": len(while_held),
        "held_p50_ms": _quantile(while_held, 50),
        "held_p99_ms": _quantile(while_held, 99),
        "sends_to_held_room_stored": held.count("stored"),
        "sends_to_held_room_unavailable": held.count("unavailable"),
    }


async def _write(writer: MessageWriter, client: UUID, room: UUID) -> str:
    message = uuid7()
    draft = Draft(
        client_id=client,
        room_id=room,
        user_id=None,
        sender="system",
        sender_id=None,
        sender_key="system:bench",
        client_msg_id=str(message),
        body_hash=message.bytes,
        content="x" * 100,
        reply_to=None,
        attachments=[],
        mentions=[],
        metadata={},
        message_id=message,
    )
    try:
        outcome: Outcome = await writer.write(draft)
    except UnavailableError:
        return "unavailable"
    return outcome.outcome


def _quantile(values: list[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100)[percent - 1], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    with Servers(durable=True) as servers:
        made = servers.fresh_database()
        figures = asyncio.run(measure(made.app_url, made.admin_url))
    if arguments.json:
        json.dump(figures, sys.stdout)
    else:
        for name, value in figures.items():
            print(f"{name:<32} {value}")


if __name__ == "__main__":
    main()
