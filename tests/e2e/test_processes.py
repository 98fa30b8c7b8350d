"""Several web processes on one port: no client notices, whichever of them a request reaches."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import MakeCluster
from tests.support.clients import Device, PythonDevice, all_see
from tests.support.javascript import JavaScript
from tests.support.nodes import Node, eventually
from tests.support.scene import Scene, on_stage

OPTIONS: list[dict[str, Any]] = [{}, {"transports": ["polling"]}, {"transports": ["websocket"]}]


def children(node: Node) -> list[int]:
    return [
        int(each) for each in Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    ]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def crowd(scene: Scene, js: JavaScript | None) -> list[Device]:
    """Connect one user with each kind of transport, several times."""
    devices: list[Device] = []
    for number, options in enumerate(OPTIONS * 3):
        name = f"user{number}"
        url, key = scene.nodes[0].url, await scene.key_of(name)
        if js is not None:
            devices.append(scene.keep(js.device(name, url, key, **options)))
        else:
            transports = options.get("transports")
            devices.append(scene.keep(PythonDevice(name, url, key, transports=transports)))
    await asyncio.gather(*(device.connect() for device in devices))
    return devices


async def converse(devices: list[Device]) -> None:
    room = await devices[0].create_room(*(device.name for device in devices[1:]))
    for turn in range(3):
        await asyncio.gather(
            *(device.say(room["id"], f"{device.name} {turn}") for device in devices)
        )
    last = 1 + 3 * len(devices)
    await all_see(devices, room["id"], last, first=devices[0].seqs(room["id"])[0])


class TestProcesses:
    @pytest.mark.js
    async def test_stock_clients_of_all_transports_converse(
        self, cluster: MakeCluster, js: JavaScript
    ) -> None:
        made = cluster(PROCESSES="2")
        nodes = await made.nodes("a")
        assert len(children(nodes[0])) == 2
        async with on_stage(nodes, made.database.secrets.operator_key) as scene:
            await converse(await crowd(scene, js))

    async def test_python_clients_converse_and_sigterm_ends_all(self, cluster: MakeCluster) -> None:
        made = cluster(PROCESSES="2")
        (node,) = await made.nodes("a")
        async with on_stage([node], made.database.secrets.operator_key) as scene:
            await converse(await crowd(scene, None))
        processes = children(node)
        assert await node.terminate() == 0
        for pid in processes:
            assert not is_there(pid)

    async def test_a_process_that_dies_is_started_again(self, cluster: MakeCluster) -> None:
        made = cluster(PROCESSES="2")
        (node,) = await made.nodes("a")
        await eventually(lambda: len(node.said("serving")) == 2, why="both serve")
        victim = children(node)[0]
        os.kill(victim, signal.SIGKILL)
        await eventually(
            lambda: victim not in children(node) and len(children(node)) == 2, why="two again"
        )
        await eventually(lambda: len(node.said("serving")) == 3, why="it serves")
        for _ in range(8):
            async with aiohttp.ClientSession() as http, http.get(f"{node.url}/health") as answer:
                assert answer.status == 200

    async def test_processes_end_with_whoever_started_them(self, cluster: MakeCluster) -> None:
        made = cluster(PROCESSES="2")
        (node,) = await made.nodes("a")
        processes = children(node)
        node.kill()
        await eventually(
            lambda: not any(is_there(pid) for pid in processes),
            why="nobody is left behind",
        )

    async def test_a_port_that_is_taken_is_said(self, cluster: MakeCluster) -> None:
        made = cluster()
        (taken,) = await made.nodes("a")
        second = made.node("b", PROCESSES="2")
        second.port = taken.port
        second.arguments = ["chatserver", "serve", "--host", "127.0.0.1", "--port", str(taken.port)]
        second.spawn()
        await eventually(lambda: not second.is_running, why="it ends")
        assert f"Port {taken.port} is taken" in second.last_words()
