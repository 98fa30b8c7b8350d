"""SIGTERM: unready at once, everyone sent elsewhere within the time, nothing lost."""

import asyncio
import time
from typing import Any

import aiohttp
from socketio.exceptions import SocketIOError

from tests.e2e.conftest import MakeCluster
from tests.support.clients import CHAT, PythonDevice, all_see
from tests.support.nodes import eventually
from tests.support.scene import on_stage


class TestDrain:
    async def test_a_node_that_goes_answers_what_it_took_and_sends_all_elsewhere(
        self, cluster: MakeCluster
    ) -> None:
        made = cluster()
        a, b = await made.nodes("a", "b")
        async with on_stage([a, b], made.database.secrets.operator_key) as scene:
            stays = await scene.device("stays", 1)
            goers = [await scene.device(f"goer{number}", 0) for number in range(60)]
            room = await stays.create_room(*(goer.name for goer in goers))
            acks: list[dict[str, Any]] = []
            over = asyncio.Event()

            async def talk(device: PythonDevice) -> None:
                number = 0
                while not over.is_set() and not device.disconnects:
                    number += 1
                    payload = {
                        "room_id": room["id"],
                        "content": f"{device.name} {number}",
                        "client_msg_id": f"{device.name}-{number}",
                    }
                    try:
                        acks.append(await device.emit(CHAT, "message.send", payload))
                    except (OSError, SocketIOError):
                        return
                    await asyncio.sleep(0.02)

            talking = [asyncio.create_task(talk(goer)) for goer in goers]
            await asyncio.sleep(0.5)
            began = time.monotonic()
            ending = asyncio.create_task(a.terminate())

            async def is_unready() -> bool:
                status, body = await a.health()
                return status == 503 and body.get("unready") == ["draining"]

            await eventually(is_unready, within_s=2, why="it says that it is not ready")
            assert await ending == 0
            took = time.monotonic() - began
            assert took < 25
            over.set()
            await asyncio.gather(*talking)
            for goer in goers:
                closing = goer.of_type("session.closing") + [
                    fact for name, fact in goer.events["/rooms"] if name == "session.closing"
                ]
                assert [fact["data"]["code"] for fact in closing] == ["server.draining"]
                assert closing[0]["data"]["reconnect"] == "now"
            sent = [ack for ack in acks if ack["ok"]]
            assert sent
            last = max(ack["data"]["message"]["seq"] for ack in sent)
            first = stays.seqs(room["id"])[0]
            await all_see([stays], room["id"], last, first=first)
            told = {fact["seq"]: fact for fact in stays.facts(room["id"])}
            for ack in sent:
                message = ack["data"]["message"]
                assert told[message["seq"]]["data"]["message"]["id"] == message["id"]

    async def test_a_draining_node_takes_nobody_new(self, cluster: MakeCluster) -> None:
        made = cluster()
        (a,) = await made.nodes("a")
        async with on_stage([a], made.database.secrets.operator_key) as scene:
            for number in range(120):
                await scene.device(f"goer{number}", 0, namespaces=(CHAT,))
            ending = asyncio.create_task(a.terminate())
            await asyncio.sleep(0.3)
            async with aiohttp.ClientSession() as http:
                for path in ("/socket.io/?EIO=4&transport=polling", "/api/v1/websocket"):
                    async with http.get(a.url + path) as answer:
                        assert answer.status == 503
                        assert int(answer.headers["Retry-After"]) >= 1
            assert await ending == 0
