"""What row-level security would cost: rooms got, listed and made, without it and with it.

`python -m benchmarks.row_level_security` on an idle machine; it starts a PostgreSQL of its own.
Rounds alternate, so that a slow minute hits both.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, event, text

from chatserver.kernel.principal import Principal
from chatserver.rooms.schemas import CreateRoom, ListRooms, RoomOut, RoomRef
from tests.support.people import House
from tests.support.servers import Servers, run_sql

CLIENT: ContextVar[str] = ContextVar("client", default="")
ROUNDS: Final = 6
TIMES: Final = 150
TABLES: Final = (
    *("app_user", "client_key", "departure", "idempotency", "key_family", "key_retired"),
    *("member", "message", "outbox", "room", "room_event"),
)
# The sub-select is evaluated once per statement and not once per row.
_OWN: Final = "client_id = (select current_setting('chatserver.client_id', false)::uuid)"
ON: Final = tuple(
    statement
    for table in TABLES
    for statement in (
        f"create policy tenant on {table} using ({_OWN})",
        f"alter table {table} enable row level security",
        f"alter table {table} force row level security",
    )
)
OFF: Final = tuple(
    statement
    for table in TABLES
    for statement in (
        f"alter table {table} disable row level security",
        f"drop policy if exists tenant on {table}",
    )
)


async def _people(house: House) -> Principal:
    master = await house.tenant()
    ann = await house.person(master, "ann")
    for _ in range(200):
        await house.room(ann)
    return ann


def _calls(house: House, ann: Principal, room: RoomOut) -> dict[str, Callable[[], Awaitable[Any]]]:
    async def get() -> None:
        async with house.container.open_rooms() as rooms:
            await rooms.get(ann, RoomRef(room_id=room.id))

    async def listed() -> None:
        async with house.container.open_rooms() as rooms:
            await rooms.list_mine(ann, ListRooms())

    async def create() -> None:
        async with house.container.open_rooms() as rooms:
            await rooms.create(ann, CreateRoom(type="group"))

    return {"get": get, "list": listed, "create": create}


async def _measure(call: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Give the median in ms, and our own CPU in ms per call."""
    took = []
    cpu = time.process_time()
    for _ in range(TIMES):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000, (time.process_time() - cpu) * 1000 / TIMES


def _postgres_cpu(pid: int) -> float:
    """Give the CPU seconds of a server and all that it started, also of those that ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid or int(stat.parent.name) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _with_client(house: House) -> Callable[[], None]:
    engine = house.container.database.engine.sync_engine

    def begin(connection: Connection) -> None:
        connection.execute(
            text("select set_config('chatserver.client_id', :client, true)"),
            {"client": CLIENT.get()},
        )

    event.listen(engine, "begin", begin)
    return lambda: event.remove(engine, "begin", begin)


async def main() -> None:
    with Servers() as servers:
        database = servers.fresh_database()
        house = House(database)
        await house.start()
        ann = await _people(house)
        CLIENT.set(str(ann.client_id))
        calls = _calls(house, ann, await house.room(ann))
        figures: dict[tuple[str, bool], list[tuple[float, float, float]]] = {}
        pid = servers.postgres.pid or 0
        for number in range(ROUNDS * 2):
            is_on = bool(number % 2)
            await asyncio.to_thread(run_sql, database.admin_url, ON if is_on else OFF)
            stop = _with_client(house) if is_on else lambda: None
            for name, call in calls.items():
                before = _postgres_cpu(pid)
                p50, cpu = await _measure(call)
                spent = (_postgres_cpu(pid) - before) * 1000 / TIMES
                figures.setdefault((name, is_on), []).append((p50, cpu, spent))
            stop()
        for (name, is_on), rounds in sorted(figures.items()):
            p50, cpu, spent = (statistics.median(each) for each in zip(*rounds, strict=True))
            state = "with   " if is_on else "without"
            print(
                f"{name:<7} {state} p50 {p50:6.2f} ms   server {cpu:5.2f} ms"
                f"   PostgreSQL {spent:5.2f} ms"
            )
        await house.close()


if __name__ == "__main__":
    asyncio.run(main())
