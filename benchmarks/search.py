"""How long does the database search through a million messages?

`python -m benchmarks.search [--messages 1000000]` starts a PostgreSQL of its own (default settings,
no fsync), fills it with messages of three clients over 60 days, with words as often as in a natural
language (Zipf), indexes them as the server does, and asks through the service: words of several
frequencies, as members of 10 to 700 rooms and as the application. Prints p50, as the asker
waits, and what PostgreSQL's CPU took of that, which a busy machine does not change: milliseconds.
"""

import argparse
import asyncio
import itertools
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import text

from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import ALL_SCOPES, Caller, Principal
from chatserver.search.schemas import SearchMessages
from tests.support.people import House
from tests.support.servers import Servers

ROOMS: Final = 1000
SHARES: Final = (0.8, 0.15, 0.05)
DAYS: Final = 60
WORDS: Final = 60_000
RANKS: Final = {"half of all": 0, "6 %": 20, "2 %": 60, "0.1 %": 2000, "rare": 40_000}
READERS: Final = {"10 rooms": 10, "50 rooms": 50, "100 rooms": 100, "700 rooms": 700}
TIMES: Final = 15
BATCH: Final = 20_000
RESULTS: Final = Path(__file__).with_name("results") / "search.json"

_PEOPLE = """
insert into client (id, slug, name, status) values ($1, $2, $2, 'active')
"""


class Corpus:
    """Messages whose words are as frequent as those of a language."""

    def __init__(self, clients: list[UUID], messages: int) -> None:
        self._random = random.Random(7)
        self.words = [self._word() for _ in range(WORDS)]
        self._weights = list(itertools.accumulate(1 / (n + 2.7) for n in range(WORDS)))
        self._clients = clients
        self.rooms = {client: [uuid7() for _ in range(ROOMS)] for client in clients}
        self._messages = messages
        self._seqs = {room: 0 for rooms in self.rooms.values() for room in rooms}

    def _word(self) -> str:
        letters = self._random.choices("abcdefghijklmnopqrstuvwxyz", k=self._random.randint(3, 9))
        return "w" + "".join(letters)

    def some_rooms(self, client: UUID, count: int) -> list[UUID]:
        return self._random.sample(self.rooms[client], count)

    def rows(self, start: int, count: int) -> Iterator[tuple[Any, ...]]:
        now = datetime.now(UTC)
        for number in range(start, min(start + count, self._messages)):
            [client] = self._random.choices(self._clients, SHARES)
            room = self._random.choice(self.rooms[client])
            self._seqs[room] += 1
            seq = self._seqs[room]
            content = " ".join(
                self._random.choices(
                    self.words, cum_weights=self._weights, k=self._random.randint(5, 25)
                )
            )
            at = now - timedelta(days=DAYS) * (1 - number / self._messages)
            yield (
                uuid7(), client, room, seq, seq, "user", f"user-{seq % 50}", "bench",
                str(number), b"", content, "complete", False, at,
            )  # fmt: skip


_COLUMNS = (
    "id", "client_id", "room_id", "seq", "msg_no", "sender", "sender_id", "sender_key",
    "client_msg_id", "body_hash", "content", "status", "pinned", "created_at",
)  # fmt: skip


async def fill(admin_url: str, house: House, messages: int) -> tuple[Corpus, list[UUID], float]:
    """Write and index messages; how many were indexed a second."""
    connection = await asyncpg.connect(admin_url)
    clients = [uuid7() for _ in SHARES]
    corpus = Corpus(clients, messages)
    for number, client in enumerate(clients):
        await connection.execute(_PEOPLE, client, f"bench-{number}")
        await connection.executemany(
            "insert into room (id, client_id, type, history, is_active, epoch, members_count)"
            " values ($1, $2, 'group', 'all', true, 1, 1)",
            [(room, client) for room in corpus.rooms[client]],
        )
    indexing = 0.0
    rows: list[tuple[Any, ...]] = []
    # Most of it without the index, which is made afterwards: else the filling takes an hour.
    definition = await connection.fetchval(
        "select indexdef from pg_indexes where indexname = 'ix_message_search_search'"
    )
    await connection.execute("drop index ix_message_search_search")
    last = (messages - 1) // BATCH * BATCH
    for start in range(0, messages, BATCH):
        if start == last:
            await connection.execute(definition)
        rows = list(corpus.rows(start, BATCH))
        await connection.copy_records_to_table("message", records=rows, columns=list(_COLUMNS))
        began = time.perf_counter()
        for at in range(0, len(rows), 500):
            await house.container.search.indexer.put([row[0] for row in rows[at : at + 500]])
        indexing = time.perf_counter() - began
        sys.stderr.write(f"\r{start + len(rows):>9} messages")
    sys.stderr.write("\n")
    await connection.execute("vacuum analyze")
    for name in ("message", "message_search", "ix_message_search_search"):
        size = await connection.fetchval(
            "select pg_size_pretty(pg_total_relation_size($1::text::regclass))", name
        )
        print(f"{name:>28}  {size}")
    await connection.close()
    return corpus, clients, len(rows) / indexing


async def measure(admin_url: str, house: House, messages: int) -> dict[str, Any]:
    corpus, clients, per_s = await fill(admin_url, house, messages)
    print(f"{'indexed a second':>28}  {per_s:,.0f}")
    connection = await asyncpg.connect(admin_url)
    readers = {"the application": Principal(caller=Caller.MASTER, client_id=clients[0])}
    for name, count in READERS.items():
        user = uuid7()
        await connection.execute(
            "insert into app_user (id, client_id, external_id) values ($1, $2, $3)",
            user, clients[0], name.replace(" ", "-"),
        )  # fmt: skip
        await connection.executemany(
            "insert into member (room_id, user_id, client_id, role, is_muted, is_favorite,"
            " notification_level) values ($1, $2, $3, 'member', false, false, 'mentions')",
            [(room, user, clients[0]) for room in corpus.some_rooms(clients[0], count)],
        )
        readers[name] = Principal(
            caller=Caller.USER, client_id=clients[0], user_id=user, scopes=ALL_SCOPES
        )
    await connection.execute("analyze member")
    await connection.close()
    table: dict[str, Any] = {}
    for reader, principal in readers.items():
        table[reader] = {}
        for frequency, rank in RANKS.items():
            took = []
            cpu = await cpu_s(house)
            for _ in range(TIMES):
                began = time.perf_counter()
                await house.container.search.service.search(
                    principal, SearchMessages(q=corpus.words[rank])
                )
                took.append((time.perf_counter() - began) * 1000)
            spent = (await cpu_s(house) - cpu) / TIMES * 1000
            table[reader][frequency] = [round(statistics.median(took), 1), round(spent, 1)]
        print(f"{reader:>28}  " + "  ".join(f"{k}: {v}" for k, v in table[reader].items()))
    return {"messages": messages, "indexed_per_s": round(per_s), "p50_ms_and_cpu_ms": table}


async def cpu_s(house: House) -> float:
    """Add up what PostgreSQL's processes behind the search's connections have used."""
    async with house.container.database.transaction() as session:
        found = await session.execute(
            text("select pid from pg_stat_activity where application_name = 'chatserver search'")
        )
    return sum(_spent(pid) for pid in found.scalars())


def _spent(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(servers: Servers, messages: int) -> dict[str, Any]:
    address = servers.fresh_database()
    house = House(address)
    try:
        return await measure(address.admin_url, house, messages)
    finally:
        await house.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    chosen = parser.parse_args()
    with Servers() as servers:
        found = asyncio.run(run(servers, chosen.messages))
    RESULTS.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
