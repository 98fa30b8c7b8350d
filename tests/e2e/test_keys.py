"""The life of keys as stock clients live it: rotation, refresh, expiry, theft."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.clients import CHAT, ROOMS, Api, PythonDevice, RawSocket, RefusedError
from tests.support.nodes import Cluster, eventually
from tests.support.scene import Scene, on_stage

NOTIFICATIONS = "/notifications"
ALL = (ROOMS, CHAT, NOTIFICATIONS)


def rotated(device: PythonDevice) -> list[tuple[str, dict[str, Any]]]:
    return [
        (namespace, fact["data"])
        for namespace in ALL
        for fact in device.of_type("auth.rotated", namespace)
    ]


async def connected(scene: Scene, key: str, node: int = 0, *namespaces: str) -> PythonDevice:
    device = scene.keep(PythonDevice("alice", scene.nodes[node].url, key))
    await device.connect(*(namespaces or ALL))
    return device


async def handed_out(scene: Scene, key: str, node: int = 0) -> dict[str, Any]:
    """Connect, give what `auth.rotated` says, and go."""
    device = await connected(scene, key, node, CHAT)
    await eventually(lambda: rotated(device), why="a key is handed out")
    await device.close()
    return rotated(device)[0][1]


def closings(device: PythonDevice) -> list[str]:
    return [
        fact["data"]["code"]
        for namespace in ALL
        for fact in device.of_type("session.closing", namespace)
    ]


class TestRotation:
    async def test_one_namespace_is_told_once_right_after_it_is_ready(self, scene: Scene) -> None:
        issued = await scene.login("alice")
        device = await connected(scene, issued["key"])
        await eventually(lambda: rotated(device))
        await asyncio.sleep(0.3)
        [(namespace, told)] = rotated(device)
        names = [name for name, _ in device.events[namespace]]
        assert names[:2] == ["session.ready", "auth.rotated"]
        assert set(told) == {"key", "key_id", "expires_at"}
        assert told["key"] != issued["key"]
        assert told["expires_at"] == issued["expires_at"]

    async def test_a_reconnect_loop_that_keeps_nothing_is_handed_one_key(
        self, scene: Scene
    ) -> None:
        key = (await scene.login("alice"))["key"]
        told = [await handed_out(scene, key, node % 2) for node in range(6)]
        assert len({it["key"] for it in told}) == 1

    async def test_a_client_that_always_keeps_the_new_key_goes_on_for_ever(
        self, scene: Scene
    ) -> None:
        key = (await scene.login("alice"))["key"]
        seen = [key]
        for node in range(6):
            key = (await handed_out(scene, key, node % 2))["key"]
            seen.append(key)
        assert len(set(seen)) == 7

    async def test_a_lost_answer_locks_nobody_out(self, scene: Scene) -> None:
        key = (await scene.login("alice"))["key"]
        raw = RawSocket(scene.http, scene.nodes[0].url)
        socket = await scene.http.ws_connect(raw._url)
        # The connect is sent, and the line goes dead before anything is heard.
        await socket.send_str(f'40{CHAT},{{"token":"{key}"}}')
        await asyncio.sleep(0.3)
        await socket.close()
        device = await connected(scene, key, 1, CHAT)
        await eventually(lambda: rotated(device))

    async def test_a_fixed_token_on_the_socket_and_the_new_key_in_rest_go_on_for_ever(
        self, scene: Scene
    ) -> None:
        key = (await scene.login("alice"))["key"]
        for node in (0, 1, 0, 1):
            new = (await handed_out(scene, key, node))["key"]
            for each in scene.nodes:
                me = await Api(scene.http, each.url, new).get("/me")
                assert me.status == 200

    async def test_an_explicit_key_is_handed_nothing(self, scene: Scene) -> None:
        key = (await scene.login("alice", rotation="explicit"))["key"]
        device = await connected(scene, key)
        await asyncio.sleep(0.3)
        assert rotated(device) == []

    async def test_a_key_can_be_confirmed_without_connecting_again(self, scene: Scene) -> None:
        key = (await scene.login("alice"))["key"]
        device = await connected(scene, key)
        await eventually(lambda: rotated(device))
        told = rotated(device)[0][1]
        for namespace in ALL:
            done = await device.call(namespace, "auth.confirm", {"key_id": told["key_id"]})
            assert done == {"key_id": told["key_id"]}
        me = (await Api(scene.http, scene.nodes[1].url, told["key"]).get("/me")).ok()
        assert me["key"]["key_id"] == told["key_id"]
        stranger = (await scene.login("bob"))["key_id"]
        refused = await device.refused(CHAT, "auth.confirm", {"key_id": stranger})
        assert refused["code"] == "payload.invalid"


class TestRefresh:
    async def test_another_key_of_the_user_changes_the_scopes_at_once(self, scene: Scene) -> None:
        reading = (await scene.login("alice", scopes=["chat:read", "rooms:read"]))["key"]
        device = await connected(scene, reading, 0, ROOMS, CHAT)
        room = {"type": "group", "member_ids": []}
        refused = await device.refused(ROOMS, "room.create", room)
        assert refused["code"] == "auth.scope_missing"
        full = await scene.login("alice")
        done = await device.call(CHAT, "auth.refresh", {"token": full["key"]})
        assert done["auth"]["key_id"] == full["key_id"]
        await device.call(ROOMS, "room.create", room)
        back = await device.call(ROOMS, "auth.refresh", {"token": reading})
        assert back["auth"]["scopes"] == ["chat:read", "rooms:read"]
        assert (await device.refused(ROOMS, "room.create", room))["code"] == "auth.scope_missing"

    async def test_a_key_that_may_not_read_hears_nothing_until_it_may(self, scene: Scene) -> None:
        writing = (await scene.login("alice", scopes=["chat:write", "rooms:write"]))["key"]
        with pytest.raises(RefusedError) as told:
            await connected(scene, writing, 0, CHAT)
        assert told.value.error["code"] == "auth.scope_missing"
        silent = await connected(scene, (await scene.login("alice"))["key"], 0, ROOMS, CHAT)
        await silent.call(CHAT, "auth.refresh", {"token": writing})
        hearing = await connected(scene, (await scene.login("alice"))["key"], 1, ROOMS, CHAT)
        room = (await hearing.create_room())["id"]
        await silent.say(room, "one")
        await hearing.has_seq(room, 2)
        assert silent.facts(room) == []
        await silent.call(CHAT, "auth.refresh", {"token": (await scene.login("alice"))["key"]})
        await hearing.say(room, "two")
        await silent.has_seq(room, 3)

    async def test_somebody_elses_key_is_refused(self, scene: Scene) -> None:
        device = await connected(scene, (await scene.login("alice"))["key"])
        bobs = (await scene.login("bob"))["key"]
        refused = await device.refused(CHAT, "auth.refresh", {"token": bobs})
        assert refused["code"] == "auth.invalid"
        assert (await device.refused(CHAT, "auth.refresh", {"token": "x"}))["code"] == (
            "auth.invalid"
        )

    async def test_the_end_is_announced_then_only_a_refresh_is_taken_then_all_goes_on(
        self, scene: Scene
    ) -> None:
        issued = await scene.login("alice", ttl_s=3)
        device = await connected(scene, issued["key"], 0, ROOMS, CHAT)
        other = await connected(scene, (await scene.login("alice"))["key"], 1, ROOMS, CHAT)
        room = (await device.create_room())["id"]
        await eventually(lambda: device.of_type("auth.expiring", ROOMS), within_s=5)
        assert (
            device.of_type("auth.expiring", ROOMS)[0]["data"]["expires_at"]
            == (issued["expires_at"])
        )
        await asyncio.sleep(3.2)
        for namespace, command in ((CHAT, "sync"), (ROOMS, "room.list"), (CHAT, "no.such")):
            refused = await device.refused(namespace, command, {})
            assert refused["code"] == "auth.expired"
        await asyncio.sleep(2.1)
        await other.say(room, "while it had no key")
        await other.has_seq(room, 2)
        await asyncio.sleep(0.3)
        assert device.seqs(room) == [1], "nothing is shown to an expired key"
        fresh = (await scene.login("alice"))["key"]
        await device.call(CHAT, "auth.refresh", {"token": fresh})
        await device.say(room, "again")
        await device.has_seq(room, 3)
        assert device.seqs(room) == [1, 2, 3], "what was held follows, in order"

    async def test_an_expired_key_connects_in_limbo_and_is_woken_by_a_refresh(
        self, scene: Scene
    ) -> None:
        key = (await scene.login("alice", ttl_s=1))["key"]
        await asyncio.sleep(1.2)
        raw = await RawSocket(scene.http, scene.nodes[0].url).connect(key, ROOMS, CHAT)
        refused = await raw.call_raw(CHAT, '["sync",{}]')
        assert refused["error"]["code"] == "auth.expired"
        assert not any("session.ready" in text for text in raw.received)
        fresh = (await scene.login("alice"))["key"]
        done = await raw.call_raw(CHAT, f'["auth.refresh",{{"token":"{fresh}"}}]')
        assert done["ok"]
        assert sum("session.ready" in text for text in raw.received) == 2
        assert (await raw.call_raw(CHAT, '["sync",{}]'))["ok"]
        await raw.close()

    async def test_limbo_lasts_ten_seconds(self, scene: Scene) -> None:
        key = (await scene.login("alice", ttl_s=1))["key"]
        await asyncio.sleep(1.2)
        raw = await RawSocket(scene.http, scene.nodes[0].url).connect(key, CHAT)
        said = await raw.until(lambda text: "session.closing" in text)
        assert '"auth.expired"' in said

    async def test_a_revoked_key_has_no_limbo(self, scene: Scene) -> None:
        key = (await scene.login("alice", ttl_s=1))["key"]
        (await scene.api.post("/users/alice/revoke")).ok()
        await asyncio.sleep(1.2)
        with pytest.raises(RefusedError) as refused:
            await connected(scene, key, 0, CHAT)
        assert refused.value.error["code"] == "auth.revoked"


class TestTheft:
    @pytest.fixture
    async def hasty(self, cluster: Callable[..., Cluster]) -> AsyncIterator[Scene]:
        """Two nodes on which a grace lasts one second."""
        made = cluster(KEY_GRACE_S="1")
        nodes = await made.nodes("a", "b")
        async with on_stage(nodes, made.database.secrets.operator_key) as scene:
            yield scene

    async def test_whoever_comes_with_the_used_up_key_ends_the_device_everywhere(
        self, hasty: Scene
    ) -> None:
        issued = await hasty.login("alice", device_id="phone")
        stolen = issued["key"]
        key = (await handed_out(hasty, stolen))["key"]
        phone = await connected(hasty, key, 0)
        laptop = await connected(hasty, (await hasty.login("alice"))["key"], 1)
        await asyncio.sleep(1.5)
        with pytest.raises(RefusedError) as refused:
            await connected(hasty, stolen, 1, CHAT)
        assert refused.value.error["code"] == "auth.reuse_detected"
        assert refused.value.error["details"]["action"] == "login"
        await eventually(lambda: not phone.client.connected, within_s=5)
        assert closings(phone) == ["auth.reuse_detected"]
        [told] = await eventually(lambda: laptop.of_type("auth.reuse_detected"))
        assert told["data"]["device_id"] == "phone"
        assert laptop.client.connected
        for node in hasty.nodes:
            me = await Api(hasty.http, node.url, key).get("/me")
            assert (me.status, me.body["code"]) == (401, "auth.revoked")
