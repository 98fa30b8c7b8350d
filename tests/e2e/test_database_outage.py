"""PostgreSQL goes away and comes back."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.support.clients import CHAT, PythonDevice, RefusedError, all_see
from tests.support.nodes import Cluster, eventually
from tests.support.scene import on_stage
from tests.support.servers import Servers

AWAY_S = 10.0
# The server answers within 4 s, come what may; the rest is for two busy cores.
DEADLINE_S = 8.0


class Talker:
    """Sends one message after the other, insisting on each, and notes every answer."""

    def __init__(self, device: PythonDevice, room_id: str) -> None:
        self.device = device
        self.room_id = room_id
        self.codes: Counter[str] = Counter()
        self.acked: list[int] = []
        self.stopping = False

    async def once(self, text: str) -> dict[str, Any]:
        """Send, and be answered in time."""
        text = f"{self.device.name} {text}"
        payload = {"room_id": self.room_id, "content": text, "client_msg_id": text}
        async with asyncio.timeout(DEADLINE_S):
            return await self.device.emit(CHAT, "message.send", payload)

    async def talk(self) -> None:
        at = 0
        while not self.stopping:
            ack = await self.once(f"{at}")
            if ack["ok"]:
                self.codes["ok"] += 1
                self.acked.append(ack["data"]["message"]["seq"])
                at += 1
            else:
                error = ack["error"]
                assert error["retryable"] is True
                assert error["retry_after_ms"] > 0
                self.codes[error["code"]] += 1
            await asyncio.sleep(0.05)


async def test_sends_are_answered_connects_refused_and_all_heals_by_itself(
    own_cluster: Cluster, own_servers: Servers
) -> None:
    nodes = await own_cluster.nodes("a", "b")
    pids = [node.pid for node in nodes]
    async with on_stage(nodes, own_cluster.database.secrets.operator_key) as scene:
        devices = [await scene.device(f"user-{at}", at % 2) for at in range(6)]
        room = await devices[0].create_room(*(device.name for device in devices[1:]))
        talkers = [Talker(device, room["id"]) for device in devices]
        talking = [asyncio.create_task(talker.talk()) for talker in talkers]
        await eventually(lambda: all(talker.codes["ok"] >= 3 for talker in talkers))

        await asyncio.to_thread(own_servers.postgres.stop, timeout_seconds=5.0)
        for talker in talkers:
            talker.codes.clear()
        gone_at = asyncio.get_running_loop().time()
        await eventually(lambda: all(talker.codes["unavailable"] for talker in talkers))
        for node in nodes:
            status, body = await node.health()
            assert (status, body["status"]) == (503, "unready")
            assert "database" in body["unready"]
            stranger = PythonDevice("user-0", node.url, await scene.key_of("user-0"))
            with pytest.raises(RefusedError) as refused:
                await stranger.connect(CHAT)
            assert refused.value.error["code"] == "unavailable"
            assert stranger.events == {}
        # Many that wait for one another in one connection's lane are all answered, too.
        burst = Talker(devices[0], room["id"])
        acks = await asyncio.gather(*(burst.once(f"burst {at}") for at in range(50)))
        assert {ack["error"]["code"] for ack in acks} == {"unavailable"}
        read = await devices[0].refused(CHAT, "message.history", {"room_id": room["id"]})
        assert read["code"] == "unavailable"
        rest = await (await scene.as_user("user-0")).get(f"/rooms/{room['id']}/messages")
        assert (rest.status, rest.body["code"]) == (503, "unavailable")
        await asyncio.sleep(max(0.0, AWAY_S - (asyncio.get_running_loop().time() - gone_at)))
        # Nobody was told anything else, and nobody was sent away.
        assert all(set(talker.codes) == {"unavailable"} for talker in talkers)
        assert all(device.client.connected and not device.disconnects for device in devices)

        # Not in a thread: the server ends with the thread that started it.
        own_servers.postgres.start()
        await eventually(lambda: all(talker.codes["ok"] >= 3 for talker in talkers))
        for node in nodes:
            await eventually(node.is_ready, why=f"{node.name} is ready again")
        for talker in talkers:
            talker.stopping = True
        await asyncio.gather(*talking)

        assert [node.pid for node in nodes] == pids
        assert all(node.is_running for node in nodes)
        last = max(talker.acked[-1] for talker in talkers)
        acked = [seq for talker in talkers for seq in talker.acked]
        assert sorted(acked) == list(range(2, last + 1))
        await all_see(devices, room["id"], last)

        late = await scene.device("user-0", 1)
        await late.say(room["id"], "a new connection works, too")


async def test_sends_to_a_database_that_hangs_are_answered_and_stored_once_by_a_retry(
    own_cluster: Cluster, own_servers: Servers
) -> None:
    nodes = await own_cluster.nodes("a", "b")
    async with on_stage(nodes, own_cluster.database.secrets.operator_key) as scene:
        devices = [await scene.device(f"user-{at}", at % 2) for at in range(6)]
        room = await devices[0].create_room(*(device.name for device in devices[1:]))
        talkers = [Talker(device, room["id"]) for device in devices]
        await asyncio.gather(*(talker.once("before") for talker in talkers))

        own_servers.postgres.pause()
        try:
            # It says nothing at all: the deadline is our own.
            acks = await asyncio.gather(*(talker.once("meanwhile") for talker in talkers))
            assert {ack["error"]["code"] for ack in acks} == {"unavailable"}
            for node in nodes:
                status, body = await node.health()
                assert (status, body["unready"]) == (503, ["database"])
        finally:
            own_servers.postgres.resume()
        for node in nodes:
            await eventually(node.is_ready, why=f"{node.name} is ready again")
        stored = [await talker.once("meanwhile") for talker in talkers]
        seqs = [ack["data"]["message"]["seq"] for ack in stored]
        assert sorted(seqs) == list(range(8, 14))
        await all_see(devices, room["id"], 13)
        assert not any(device.disconnects for device in devices)
