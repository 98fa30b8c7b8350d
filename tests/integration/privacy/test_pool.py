"""A connection that somebody gave up in the middle brings nobody else's rows along."""

import asyncio
import random

from chatserver.chat.schemas import ListMessages
from chatserver.infra.database import Database
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.principal import Principal
from chatserver.rooms.schemas import ListRooms
from tests.support.people import House
from tests.support.servers import Database as Address

ROUNDS = 60


async def test_cancelled_calls_on_one_connection_mix_no_tenants(database: Address) -> None:
    house = House(database)
    small = Database(database.app_url, name="small", pool_size=1, fast_pool_size=1)
    # One connection of each kind for everybody: whatever is left on it, the next one would read.
    house.container.database.engine, house.container.database.sessions = (
        small.engine,
        small.sessions,
    )
    house.container.database._reads = small._reads
    house.container.database._writes = small._writes
    await house.start()
    everyone: list[tuple[Principal, str]] = []
    for canary in ("canary-a", "canary-b"):
        master = await house.tenant(canary)
        person = await house.person(master, "ann")
        room = await house.room(person, title=canary)
        await house.say(person, room.id, canary)
        everyone.append((person, canary))
    chance = random.Random(7)
    whole = cancelled = 0

    async def read(person: Principal) -> str:
        async with house.container.open_rooms() as rooms:
            listed = await rooms.list_mine(person, ListRooms())
        found = await house.container.chat.list(person, ListMessages(room_id=listed.items[0].id))
        return listed.model_dump_json() + found.model_dump_json()

    for _ in range(ROUNDS):
        tasks = [(asyncio.create_task(read(person)), canary) for person, canary in everyone * 2]
        await asyncio.sleep(chance.uniform(0, 0.02))
        for task, _ in chance.sample(tasks, 2):
            task.cancel()
        for task, canary in tasks:
            try:
                said = await task
            except asyncio.CancelledError:
                cancelled += 1
            except UnavailableError:
                # The one connection was being made anew.
                continue
            else:
                whole += 1
                assert said.count(canary) >= 2
                assert all(other not in said for _, other in everyone if other != canary)
    assert whole > ROUNDS / 2
    assert cancelled > ROUNDS / 2
    await house.close()
    await small.close()
