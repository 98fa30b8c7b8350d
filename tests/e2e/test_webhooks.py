"""Real processes: the receivers of the guide, and workers that are killed while they send."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.nodes import Cluster, Node, Process, eventually
from tests.support.receiver import Receiver
from tests.support.scene import Scene, on_stage
from tests.support.servers import Servers, free_port, run

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "webhooks.md"


def worker_of(cluster: Cluster, name: str) -> Process:
    made = Process(name, ["chatserver", "worker"], cluster.environment, cluster.directory)
    cluster.processes.append(made)
    return made


@pytest.fixture(scope="module")
def outbound(servers: Servers) -> Iterator[Cluster]:
    """A node and two workers, one of which may be killed, on a database of their own."""
    database = servers.fresh_database()
    cluster = Cluster(database, ALLOW_PRIVATE_ADDRESSES="true")
    try:
        run(_start(cluster))
        yield cluster
    finally:
        cluster.close()
        servers.drop(database)


async def _start(cluster: Cluster) -> None:
    workers = [worker_of(cluster, name) for name in ("stays", "dies")]
    for worker in workers:
        worker.spawn()
    await cluster.nodes("a")
    for worker in workers:
        await eventually(
            lambda worker=worker: worker.said("worker_ready"),  # type: ignore[misc]
            within_s=60,
            why=f"{worker.name} works",
        )


@pytest.fixture
async def stage(outbound: Cluster) -> AsyncIterator[Scene]:
    nodes = [each for each in outbound.processes if isinstance(each, Node)]
    async with on_stage(nodes, outbound.database.secrets.operator_key) as made:
        yield made


async def endpoint(stage: Scene, url: str, *events: str) -> dict[str, Any]:
    body = {"url": url, "events": list(events) or ["message.created"]}
    made: dict[str, Any] = (await stage.api.post("/webhooks/endpoints", body)).ok()
    return made


async def room_of(stage: Scene) -> str:
    await stage.people("ann")
    body = {"type": "group", "member_ids": ["ann"]}
    made: str = (await stage.api.post("/rooms", body)).ok()["id"]
    return made


async def say(stage: Scene, room: str, text: str) -> None:
    (await stage.api.post(f"/rooms/{room}/messages", {"content": text})).ok()


@asynccontextmanager
async def guide_receiver(
    language: str, program: list[str], secret: str, port: int, directory: Path
) -> AsyncIterator[asyncio.StreamReader]:
    """Run a receiver of the guide as it stands; what it prints."""
    found = re.search(rf"```{language} receiver\n(.*?)\n```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    file = directory / ("receiver.mjs" if language == "js" else "receiver.py")
    file.write_text(found.group(1))
    modules = directory / "node_modules"
    if not modules.exists():
        modules.symlink_to((ROOT / "tests/support/js/node_modules").resolve())
    process = await asyncio.create_subprocess_exec(
        *program,
        str(file),
        env={**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"listening\n"
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("language", "program"),
    [
        pytest.param("js", ["node"], marks=pytest.mark.js),
        ("python", [sys.executable]),
    ],
)
async def test_the_receivers_of_the_guide_take_what_is_sent(
    stage: Scene, tmp_path: Path, language: str, program: list[str]
) -> None:
    port = free_port()
    made = await endpoint(stage, f"http://127.0.0.1:{port}/hook")
    room = await room_of(stage)
    async with guide_receiver(language, program, made["secret"], port, tmp_path) as printed:
        await say(stage, room, "héllo from a room")
        async with asyncio.timeout(20):
            line = (await printed.readline()).decode()

        async def delivered() -> bool:
            page = (await stage.api.get(f"/webhooks/endpoints/{made['id']}/deliveries")).ok()
            return [each["state"] for each in page["items"]] == ["delivered"]

        await eventually(delivered, why="delivered")
    assert line.startswith("message.created ")
    assert "héllo from a room" in line


async def test_over_rest_from_the_test_event_to_its_explanation(stage: Scene) -> None:
    async with Receiver() as receiver:
        made = await endpoint(stage, f"{receiver.url}/hook", "room.created")
        path = f"/webhooks/endpoints/{made['id']}"
        tested = (await stage.api.post(f"{path}/test", {})).ok()
        (got,) = await receiver.until("/hook", 1)
        assert got.verify(made["secret"])["id"] == tested["event_id"]
        rotated = (await stage.api.post(f"{path}/rotate-secret", {"overlap_s": 60})).ok()
        delivery_path = f"/deliveries/{tested['delivery_id']}"

        async def delivered() -> bool:
            answer = (await stage.api.get(delivery_path)).ok()
            return bool(answer["state"] == "delivered")

        await eventually(delivered, why="delivered")
        delivery = (await stage.api.get(delivery_path)).ok()
        assert delivery["attempts"][0]["request"]["headers"]["webhook-id"] == tested["event_id"]
        explained = (await stage.api.get(f"{delivery_path}/explain")).ok()
        assert explained["sentence"] == "It was delivered after 1 try."
        (await stage.api.post(f"{delivery_path}/replay", {})).ok()
        again = (await receiver.until("/hook", 2))[1]
        assert again.id == got.id
        again.verify(rotated["secret"])
        again.verify(made["secret"])
        await room_of(stage)
        await receiver.until("/hook", 3)
        polled = (await stage.api.get(f"{path}/events", after_seq="1")).ok()
        assert [fact["type"] for fact in polled["events"]] == ["room.created"]
        assert (polled["events"][0]["event_seq"], polled["complete"]) == (2, True)

        async def settled() -> bool:
            page = (await stage.api.get(f"{path}/deliveries")).ok()
            return [each["state"] for each in page["items"]] == ["delivered"] * 2

        # What is still being sent when a replay is asked for is not sent again: the receiver hears
        # of a delivery a moment before its row does.
        await eventually(settled, why="both are delivered")
        replayed = (await stage.api.post(f"{path}/replay", {"after_seq": 1})).ok()
        assert (replayed["after_seq"], replayed["to_seq"]) == (1, 2)
        await receiver.until("/hook", 4)
        ledger = (await stage.api.get("/ledger")).ok()
        assert ledger["balanced"]
        assert ledger["channels"][0]["accepted"] == 2
        (await stage.api.delete(path)).ok()
        assert (await stage.api.get(path)).status == 404


async def test_a_worker_killed_while_it_sends_loses_nothing(
    stage: Scene, outbound: Cluster
) -> None:
    dies = next(each for each in outbound.processes if each.name == "dies")
    async with Receiver() as receiver:
        endpoints = [await endpoint(stage, f"{receiver.url}/{n}") for n in range(4)]
        room = await room_of(stage)
        await say(stage, room, "first")
        for n in range(4):
            await receiver.until(f"/{n}", 1)
        sending = asyncio.create_task(_say_many(stage, room, 60))
        await receiver.until("/0", 5)
        dies.kill()
        await sending
        # What it held comes back when its lease ends: that is not waited for here.
        connection = await asyncpg.connect(outbound.database.admin_url)
        try:

            async def all_there() -> bool:
                await connection.execute(
                    "update delivery set lease_until = clock_timestamp() - interval '1 s'"
                    " where state = 'sending' and tries = 1"
                    " and lease_until < clock_timestamp() + interval '57 s'"
                )
                return all(len({got.id for got in receiver.at(f"/{n}")}) == 61 for n in range(4))

            await eventually(all_there, within_s=60, why="everything arrives")
        finally:
            await connection.close()
        for made in endpoints:

            async def settled(made: dict[str, Any] = made) -> bool:
                path = f"/webhooks/endpoints/{made['id']}/deliveries"
                page = (await stage.api.get(path, limit="100")).ok()["items"]
                return len(page) == 61 and {each["state"] for each in page} == {"delivered"}

            await eventually(settled, within_s=60, why="every delivery has its 2xx")
    assert (await stage.api.get("/ledger")).ok()["balanced"]
    dies.spawn()


async def _say_many(stage: Scene, room: str, count: int) -> None:
    for n in range(count):
        await say(stage, room, f"m{n}")


async def test_the_process_that_stops_gives_back_what_it_had_not_begun(
    stage: Scene, outbound: Cluster
) -> None:
    """SIGTERM to a worker: the other one goes on without waiting for a lease."""
    dies = next(each for each in outbound.processes if each.name == "dies")
    await eventually(lambda: dies.is_running, why="it runs")
    async with Receiver() as receiver:
        await endpoint(stage, f"{receiver.url}/hook")
        room = await room_of(stage)
        sending = asyncio.create_task(_say_many(stage, room, 30))
        await receiver.until("/hook", 3)
        dies.signal(signal.SIGTERM)
        await sending
        await receiver.until("/hook", 30, within_s=30)
    assert len({got.id for got in receiver.at("/hook")}) == 30
