"""What a connect costs the server: key check, rotation, three namespaces, `sync`.

    python -m benchmarks.connects [connects]

Starts a database and one `serve`, connects over WebSockets from this process one after the other,
and reads how much CPU time the server's process used (user and system, from the operating system),
so that neither this process nor PostgreSQL is counted.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from tests.support.nodes import Cluster, Node
from tests.support.scene import Scene, on_stage
from tests.support.servers import Servers

NAMESPACES: Final = ("/rooms", "/chat", "/notifications")
TICKS_A_SECOND: Final = 100


def cpu_s(node: Node) -> float:
    """Give the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


async def connect(http: aiohttp.ClientSession, node: Node, key: str, *, calls: bool) -> str:
    """Connect all namespaces, catch up, leave; give the key that was handed out."""
    url = node.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    handed_out, ready, synced = key, 0, not calls
    async with http.ws_connect(url) as socket:
        for namespace in NAMESPACES:
            await socket.send_str(f"40{namespace}," + orjson.dumps({"token": key}).decode())
        if calls:
            await socket.send_str('42/chat,1["sync",{}]')
        async for message in socket:
            text = str(message.data)
            if '["session.ready"' in text:
                ready += 1
            elif '["auth.rotated"' in text:
                fact = orjson.loads(text[text.index("[") :])[1]
                handed_out = fact["data"]["key"]
            elif text.startswith("43/chat,1"):
                synced = True
            elif text.startswith("44"):
                raise RuntimeError(text)
            if ready == len(NAMESPACES) and synced:
                break
    return handed_out


async def measure(scene: Scene, node: Node, count: int, what: str) -> None:
    explicit = "explicit" if what == "no rotation" else "always"
    keys = [(await scene.login(f"user-{n}", rotation=explicit))["key"] for n in range(20)]
    adopts = what.startswith("rotation, kept")
    calls = "sync" in what
    for place, key in enumerate(keys):
        handed_out = await connect(scene.http, node, key, calls=calls)
        keys[place] = handed_out if adopts else key
    before, began = cpu_s(node), asyncio.get_running_loop().time()
    for number in range(count):
        place = number % len(keys)
        handed_out = await connect(scene.http, node, keys[place], calls=calls)
        if adopts:
            keys[place] = handed_out
    used, took = cpu_s(node) - before, asyncio.get_running_loop().time() - began
    print(f"{what:40} {used / count * 1000:6.2f} ms CPU, {took / count * 1000:6.2f} ms each")


async def main(count: int) -> None:
    with Servers(tcp=True) as servers:
        database = servers.fresh_database()
        cluster = Cluster(database)
        try:
            [node] = await cluster.nodes("bench")
            async with on_stage([node], database.secrets.operator_key) as scene:
                for what in (
                    "no rotation",
                    "rotation, not kept (read only)",
                    "rotation, kept (one write each)",
                    "rotation, kept, and sync",
                ):
                    await measure(scene, node, count, what)
        finally:
            cluster.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
