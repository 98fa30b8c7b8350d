"""The life of keys over the plain WebSocket: the same rotation, refresh, limbo and limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError

from tests.e2e.conftest import MakeCluster
from tests.support.nodes import eventually
from tests.support.plain import Plain
from tests.support.scene import Scene, on_stage

CHAT = "/chat"


@asynccontextmanager
async def plain(scene: Scene, node: int = 0) -> AsyncIterator[Plain]:
    url = f"{scene.nodes[node].url}/api/v1/websocket"
    async with scene.http.ws_connect(url) as socket:
        yield Plain(socket)


def told(peer: Plain, event: str) -> list[dict[str, Any]]:
    return [frame for frame in peer.facts if frame.get("event") == event]


class TestRotation:
    async def test_the_next_key_is_handed_out_once_right_after_session_ready(
        self, scene: Scene
    ) -> None:
        issued = await scene.login("alice")
        async with plain(scene) as alice:
            await alice.ask("connect", {"token": issued["key"]})
            rotated = await alice.read(until="auth.rotated")
            assert [frame["event"] for frame in alice.facts] == ["session.ready", "auth.rotated"]
            assert rotated["ns"] == alice.facts[0]["ns"]
            assert (await alice.ask("sync", {}, CHAT))["ok"]
            assert len(told(alice, "session.ready")) == 3
            assert len(told(alice, "auth.rotated")) == 1
            again = rotated["data"]["data"]["key"]
        async with plain(scene, 1) as alice:
            assert (await alice.ask("connect", {"token": again}, CHAT))["ok"]


class TestRefresh:
    async def test_an_expired_key_connects_in_limbo_and_is_woken_by_a_refresh(
        self, scene: Scene
    ) -> None:
        key = (await scene.login("alice", ttl_s=1))["key"]
        await asyncio.sleep(1.2)
        async with plain(scene) as alice:
            assert (await alice.ask("connect", {"token": key}))["ok"]
            refused = await alice.ask("sync", {}, CHAT)
            assert refused["error"]["code"] == "auth.expired"
            assert alice.facts == []
            fresh = (await scene.login("alice"))["key"]
            assert (await alice.ask("auth.refresh", {"token": fresh}, CHAT))["ok"]
            assert len(told(alice, "session.ready")) == 3
            assert (await alice.ask("sync", {}, CHAT))["ok"]

    async def test_limbo_lasts_ten_seconds_and_is_final(self, scene: Scene) -> None:
        key = (await scene.login("alice", ttl_s=1))["key"]
        await asyncio.sleep(1.2)
        async with plain(scene) as alice:
            assert (await alice.ask("connect", {"token": key}, CHAT))["ok"]
            await asyncio.sleep(8)
            assert not alice.socket.closed
            closing = await alice.read(until="session.closing")
            assert closing["data"]["data"]["code"] == "auth.expired"
            await alice.socket.receive()
            assert alice.socket.close_code == 1008

    async def test_the_end_is_announced_and_what_follows_waits_for_the_refresh(
        self, scene: Scene
    ) -> None:
        other = await scene.device("alice", 1)
        room = (await other.create_room())["id"]
        key = (await scene.login("alice", ttl_s=3))["key"]
        async with plain(scene) as alice:
            await alice.ask("connect", {"token": key}, CHAT)
            await alice.read(until="auth.expiring")
            await asyncio.sleep(5.3)
            await other.say(room, "while it had no key")
            await other.has_seq(room, 2)
            assert (await alice.ask("sync", {}, CHAT))["error"]["code"] == "auth.expired"
            assert told(alice, "message.created") == []
            fresh = (await scene.login("alice"))["key"]
            assert (await alice.ask("auth.refresh", {"token": fresh}, CHAT))["ok"]
            if not told(alice, "message.created"):
                await alice.read(until="message.created")
            [held] = told(alice, "message.created")
            assert held["data"]["seq"] == 2

    async def test_somebody_elses_key_is_refused(self, scene: Scene) -> None:
        bobs = (await scene.login("bob"))["key"]
        async with plain(scene) as alice:
            await alice.ask("connect", {"token": (await scene.login("alice"))["key"]}, CHAT)
            refused = await alice.ask("auth.refresh", {"token": bobs}, CHAT)
            assert refused["error"]["code"] == "auth.invalid"


class TestLimits:
    @pytest.fixture
    async def strict(self, cluster: MakeCluster) -> AsyncIterator[Scene]:
        limits = (
            '{"commands_per_s": 1, "commands_burst": 5, "violations_per_minute": 3,'
            ' "connections_per_address": 4, "connections_per_device": 2}'
        )
        made = cluster(LIMIT_VALUES=limits, LIMITS_FACTOR="1")
        nodes = await made.nodes("a")
        async with on_stage(nodes, made.database.secrets.operator_key) as scene:
            yield scene

    async def test_commands_are_counted(self, strict: Scene) -> None:
        key = (await strict.login("alice"))["key"]
        async with plain(strict) as alice:
            await alice.ask("connect", {"token": key}, CHAT)
            answers = [await alice.ask("sync", {}, CHAT) for _ in range(7)]
            codes = [each["error"]["code"] for each in answers if not each["ok"]]
            assert "rate.limited" in codes
            assert answers[0]["ok"]

    async def test_too_many_senseless_commands_end_it(self, strict: Scene) -> None:
        key = (await strict.login("alice"))["key"]
        async with plain(strict) as alice:
            await alice.ask("connect", {"token": key}, CHAT)
            for _ in range(4):
                await alice.socket.send_str('{"event":"no.such","ns":"/chat","data":{}}')
            closing = await alice.read(until="session.closing")
            assert closing["data"]["data"]["code"] == "rate.limited"
            assert closing["data"]["data"]["reconnect"] == "backoff"

    async def test_connections_of_a_device_and_of_an_address_are_capped(
        self, strict: Scene
    ) -> None:
        key = (await strict.login("alice", rotation="explicit", device_id="phone"))["key"]
        async with plain(strict) as first, plain(strict) as second, plain(strict) as third:
            for peer in (first, second, third):
                assert (await peer.ask("connect", {"token": key}, CHAT))["ok"]
            closing = await first.read(until="session.closing")
            assert closing["data"]["data"]["code"] == "quota.exceeded"
            async with plain(strict), plain(strict), plain(strict):
                with pytest.raises(WSServerHandshakeError) as refused:
                    async with plain(strict), plain(strict):
                        pass
                assert refused.value.status == 503

        async def is_open() -> bool:
            try:
                async with plain(strict):
                    return True
            except WSServerHandshakeError:
                return False

        await eventually(is_open, why="their places are free again")
