"""What is done to a stage under load. Each returns when the fault is over."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio as redis

from tests.chaos.stage import Stage
from tests.support.nodes import eventually

LIMIT = "client-output-buffer-limit"

Fault = Callable[[Stage, float], Awaitable[None]]


async def kill_node(stage: Stage, seconds: float) -> None:
    """F1: a power cut in the middle of a broadcast; the node comes back on the same port."""
    node = stage.random.choice(stage.nodes)
    node.kill()
    await asyncio.sleep(seconds)
    await node.start()


async def pause_node(stage: Stage, seconds: float) -> None:
    """SIGSTOP: the node is there and says nothing, then goes on where it was."""
    node = stage.random.choice(stage.nodes)
    node.pause()
    try:
        await asyncio.sleep(seconds)
    finally:
        node.resume()


async def kill_redis(stage: Stage, seconds: float) -> None:
    """F6: Redis dies and comes back empty."""
    stage.servers.valkey.kill()
    await asyncio.sleep(seconds)
    stage.servers.valkey.start()


async def flush_redis(stage: Stage, seconds: float) -> None:
    """F7: everything in Redis is gone."""
    await _redis(stage, "FLUSHALL")
    await asyncio.sleep(seconds)


async def deafen_node(stage: Stage, seconds: float) -> None:
    """F8: the line between one node and Redis is open and swallows everything."""
    line = stage.random.choice(list(stage.lines.values()))
    line.blackhole()
    await asyncio.sleep(seconds)
    line.heal()


async def kick_subscribers(stage: Stage, seconds: float) -> None:
    """F9: Redis cuts its subscribers, as it does with slow ones."""
    await _redis(stage, "CLIENT", "KILL", "TYPE", "pubsub")
    await asyncio.sleep(seconds)


async def kick_slow_subscriber(stage: Stage, seconds: float) -> None:
    """F9: a node doesn't read what Redis has for it, until Redis cuts it off."""
    redis_ = redis.Redis.from_url(stage.servers.valkey.url)

    async def ask(*command: str | bytes) -> Any:
        return await redis_.execute_command(*command)  # type: ignore[no-untyped-call]

    async def subscribers() -> set[bytes]:
        """Their ids, which stand first in each line."""
        lines = await ask("CLIENT", "LIST", "TYPE", "pubsub")
        return {line.split()[0] for line in lines.splitlines()}

    node = stage.random.choice(stage.nodes)
    async with redis_:
        await ask("CONFIG", "SET", LIMIT, "pubsub 1mb 0 0")
        channel = next(name for name in await ask("PUBSUB", "CHANNELS") if name.endswith(b":all"))
        before = await subscribers()
        node.pause()
        try:
            # Nobody believes this, for want of the key; but everybody has to read it.
            while before <= await subscribers():
                await ask("PUBLISH", channel, bytes(1 << 16))
            await asyncio.sleep(seconds)
        finally:
            node.resume()
            await ask("CONFIG", "SET", LIMIT, "pubsub 32mb 8mb 60")


async def restart_postgres(stage: Stage, seconds: float) -> None:
    """F11: PostgreSQL crashes and is started again."""
    stage.servers.postgres.kill()
    await asyncio.sleep(seconds)
    # Not in a thread of its own: a server ends with the thread that started it.
    stage.servers.postgres.start()


async def roll(stage: Stage, seconds: float) -> None:
    """F24: each node is told to end and started anew, one after the other."""
    for node in stage.nodes:
        assert await node.terminate() == 0, f"{node.name} did not end well"
        await asyncio.sleep(seconds)
        await node.start()


async def lose_all(stage: Stage, seconds: float) -> None:
    """F16: every client loses its connection at once."""
    await stage.swarm.do("lose_all")
    await asyncio.sleep(seconds)


async def die_at(stage: Stage, place: str) -> dict[str, Any]:
    """F2, F3: a node is started anew with a place where it dies, and comes by there soon.

    Gives what it left behind: whose sends it took along, by client_msg_id.
    """
    node = stage.random.choice(stage.nodes)
    assert await node.terminate() == 0, f"{node.name} did not end well"
    sound, note = dict(node.environment), stage.cluster.directory / "note.json"
    node.environment |= {
        "FAIL_AT": place,
        "FAIL_AFTER": str(stage.random.randint(5, 60)),
        "FAIL_NOTE": str(note),
    }
    node.program = "tests.chaos.doomed"
    await node.start()
    await eventually(lambda: not node.is_running, within_s=60, why=f"{node.name} died {place}")
    node.environment, node.program = sound, "chatserver"
    await node.start()
    left: dict[str, Any] = json.loads(note.read_text())
    return left


FAULTS: dict[str, Fault] = {
    "kill -9 of a node": kill_node,
    "SIGSTOP of a node": pause_node,
    "Redis killed": kill_redis,
    "Redis flushed": flush_redis,
    "Redis half-open for one node": deafen_node,
    "subscribers kicked": kick_subscribers,
    "a slow subscriber kicked": kick_slow_subscriber,
    "PostgreSQL restarted": restart_postgres,
    "rolling restart": roll,
    "every client cut off": lose_all,
}


async def _redis(stage: Stage, *command: str) -> None:
    client = redis.Redis.from_url(stage.servers.valkey.url)
    try:
        await client.execute_command(*command)  # type: ignore[no-untyped-call]
    finally:
        await client.aclose()
