"""How fast answers reach readers, and how many one worker writes at once.

`python -m benchmarks.answers [STREAMS]` starts a node, a worker and a provider that speaks the
protocol, each in a process of its own, and prints JSON: the time from the provider's first byte to
the reader's first delta (alone, and with all streams at once), and the worker's CPU per delta.
"""

import asyncio
import os
import statistics
import sys
import threading
import time
from typing import Any

import orjson

from tests.support.clients import CHAT, ROOMS, PythonDevice
from tests.support.language_model import LanguageModelServer
from tests.support.nodes import Cluster, eventually
from tests.support.scene import Scene, on_stage
from tests.support.servers import Servers

ALONE = 30
WORDS = 60
PAUSE_S = 0.2
AT_A_TIME = 8
TICK = os.sysconf("SC_CLK_TCK")


class Provider:
    """The provider in a thread of its own, so that it does not wait for the reader."""

    def __init__(self) -> None:
        self.server = LanguageModelServer(words=[f"word{at}" for at in range(WORDS)])
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.server.__aenter__())
        self._ready.set()
        self._loop.run_forever()


class Reader(PythonDevice):
    """Notes when the first delta of each answer came, and how many there were."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.first: dict[str, float] = {}
        self.deltas = 0

    def note(self, namespace: str, event: str, args: Any) -> None:
        if event == "message.delta":
            self.deltas += 1
            self.first.setdefault(args[0]["data"]["message_id"], time.monotonic())
        super().note(namespace, event, args)


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123 - no file of ours
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def make_room(scene: Scene) -> str:
    made = await scene.api.post("/rooms", {"type": "assistant", "member_ids": ["reader"]})
    room: str = made.ok()["id"]
    return room


async def ask(reader: Reader, room: str, bot: str, question: str) -> str:
    payload = {"room_id": room, "bot_id": bot, "content": question, "client_msg_id": question}
    asked: str = (await reader.call(CHAT, "assistant.ask", payload))["message_id"]
    return asked


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50_ms": round(statistics.median(ordered) * 1000, 1),
        "p95_ms": round(ordered[int(len(ordered) * 0.95)] * 1000, 1),
        "max_ms": round(ordered[-1] * 1000, 1),
    }


async def measure(scene: Scene, provider: LanguageModelServer, worker: int, streams: int) -> Any:
    bot = (
        await scene.api.post("/bots", {"name": "b", "retrieval": {"answer_without_sources": True}})
    ).ok()["id"]
    reader = scene.keep(Reader("reader", scene.nodes[0].url, await scene.key_of("reader")))
    await reader.connect(ROOMS, CHAT)

    async def finished(count: int) -> None:
        def done() -> int:
            return sum(
                fact["data"]["message"]["sender"] == "ai"
                for fact in reader.of_type("message.updated")
            )

        await eventually(lambda: done() >= count, within_s=240, why="all answers end")

    def delays(asked: dict[str, str]) -> list[float]:
        return [
            reader.first[asked[q]] - provider.first_at[q] for q in asked if asked[q] in reader.first
        ]

    provider.pause_s = 0.0
    starts = []
    alone: dict[str, str] = {}
    for at in range(ALONE):
        room = await make_room(scene)
        began = time.monotonic()
        alone[f"alone {at}"] = await ask(reader, room, bot, f"alone {at}")
        await finished(at + 1)
        starts.append(provider.first_at[f"alone {at}"] - began)
    provider.pause_s = PAUSE_S
    rooms = [await make_room(scene) for _ in range(streams)]
    few = asyncio.Semaphore(AT_A_TIME)

    async def ask_soon(room: str, name: str) -> str:
        async with few:
            return await ask(reader, room, bot, name)

    deltas, cpu, began = reader.deltas, cpu_s(worker), time.monotonic()
    names = [f"together {at}" for at in range(streams)]
    asked = await asyncio.gather(*map(ask_soon, rooms, names))
    await finished(ALONE + streams)
    took, used = time.monotonic() - began, cpu_s(worker) - cpu
    count = reader.deltas - deltas
    return {
        "first_byte_to_first_delta_alone": spread(delays(alone)),
        "ask_to_provider_first_byte_alone": spread(starts),
        "streams": streams,
        "at_once": provider.most_streaming,
        "first_byte_to_first_delta_together": spread(delays(dict(zip(names, asked, strict=True)))),
        "complete": sum(
            fact["data"]["message"]["status"] == "complete"
            for fact in reader.of_type("message.updated")
        )
        - ALONE,
        "seconds": round(took, 1),
        "deltas": count,
        "worker_cpu_us_per_delta": round(used / count * 1e6),
        "worker_cores": round(used / took, 2),
    }


async def main(streams: int) -> None:
    provider = Provider()
    provider.start()
    with Servers(tcp=True) as servers:
        database = servers.fresh_database()
        cluster = Cluster(
            database,
            OPENAI_BASE_URL=provider.server.url,
            ANSWERS_AT_ONCE="2000",
            ANSWERS_PER_WORKER=str(streams),
            ANSWER_FIRST_TOKEN_S="120",
            ANSWER_TOKEN_S="60",
            ANSWER_WHOLE_S="300",
        )
        try:
            await asyncio.gather(cluster.nodes("a"), cluster.workers())
            node = [each for each in cluster.processes if each.name == "a"]
            worker = next(each for each in cluster.processes if each.name == "worker")
            async with on_stage(node, database.secrets.operator_key) as scene:  # type: ignore[arg-type]
                told = await measure(scene, provider.server, worker.pid, streams)
            print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
        finally:
            cluster.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
