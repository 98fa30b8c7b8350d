"""The plain WebSocket and presence on real nodes, with real keys."""

from tests.support.clients import CHAT, ROOMS, Device
from tests.support.nodes import eventually
from tests.support.plain import Plain
from tests.support.scene import Scene


class TestPlainWebSocket:
    async def test_it_has_the_same_commands_facts_and_refusals(self, scene: Scene) -> None:
        alice = await scene.device("alice", 1)
        await scene.people("bob")
        room = await alice.create_room("bob", title="Both doors")
        url = f"{scene.nodes[0].url}/api/v1/websocket"
        async with scene.http.ws_connect(url) as socket:
            bob = Plain(socket)
            answer = await bob.ask("connect", {"token": await scene.key_of("bob")})
            assert answer["data"]["namespaces"] == ["/rooms", "/chat", "/notifications"]
            await alice.say(room["id"], "from the other door")
            fact = await bob.read(until="message.created")
            assert fact["ns"] == "/chat"
            assert fact["data"] == alice.facts(room["id"])[-1]
            payload = {"room_id": room["id"], "content": "and back", "client_msg_id": "1"}
            sent = await bob.ask("message.send", payload, "/chat")
            assert sent["data"]["duplicate"] is False
            again = await bob.ask("message.send", payload, "/chat")
            assert again["data"]["duplicate"] is True
            await alice.has_seq(room["id"], sent["data"]["message"]["seq"])
            refused = await bob.ask("room.get", {"room_id": "nonsense"}, "/rooms")
            assert refused["error"]["code"] == "payload.invalid"
            unknown = await bob.ask("room.get", {"room_id": room["id"]}, "/chat")
            assert unknown["error"]["code"] == "event.unknown"

    async def test_a_key_without_a_scope_gets_the_namespaces_that_it_may(
        self, scene: Scene
    ) -> None:
        issued = await scene.login("carol", scopes=["chat:read"])
        url = f"{scene.nodes[0].url}/api/v1/websocket"
        async with scene.http.ws_connect(url) as socket:
            carol = Plain(socket)
            answer = await carol.ask("connect", {"token": issued["key"]})
            assert answer["data"]["namespaces"] == ["/chat"]
        async with scene.http.ws_connect(url) as socket:
            stranger = Plain(socket)
            answer = await stranger.ask("connect", {"token": "csu_nonsense"})
            assert answer["error"]["code"] == "auth.invalid"


class TestPresence:
    async def test_people_and_rooms_are_watched_across_nodes(self, scene: Scene) -> None:
        alice = await scene.device("alice", 0)
        await scene.people("bob")
        room = await alice.create_room("bob")

        def told(of: Device) -> list[str]:
            return [
                user["status"]
                for fact in of.of_type("presence.changed", ROOMS)
                for user in fact["data"]["users"]
                if user["user_id"] == "bob"
            ]

        first = await alice.call(
            ROOMS, "presence.watch", {"user_ids": ["bob"], "room_ids": [room["id"]]}
        )
        statuses = {user["user_id"]: user["status"] for user in first["users"]}
        assert statuses["bob"] == "offline"
        bob = await scene.device("bob", 1)
        await eventually(lambda: told(alice) == ["online"], within_s=8, why="bob is online")
        await bob.call(ROOMS, "presence.set", {"status": "away"})
        await eventually(lambda: told(alice) == ["online", "away"], within_s=8, why="bob is away")
        counts = alice.of_type("presence.changed", ROOMS)[-1]["data"]["rooms"]
        assert counts[0]["online"] == 2
        for namespace in (ROOMS, CHAT):
            # python-socketio closes its WebSocket before it has sent this.
            await bob.client.eio.send(f"1{namespace},")
        await eventually(lambda: told(alice)[-1:] == ["offline"], within_s=8, why="bob has gone")

    async def test_strangers_rooms_and_unknown_people_are_refused(self, scene: Scene) -> None:
        alice, eve = await scene.device("alice"), await scene.device("eve")
        room = await alice.create_room()
        refused = await eve.refused(ROOMS, "presence.watch", {"room_ids": [room["id"]]})
        assert refused["code"] == "room.not_found"
        refused = await eve.refused(ROOMS, "presence.watch", {"user_ids": ["nobody"]})
        assert refused["code"] == "user.not_found"
