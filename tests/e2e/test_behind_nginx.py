"""Both nodes behind the nginx of docker-compose.yml: stock clients, on both transports."""

from collections.abc import Iterator

import pytest

from tests.support.clients import CHAT, ROOMS, PythonDevice
from tests.support.javascript import JavaScript
from tests.support.nginx import nginx
from tests.support.nodes import Node
from tests.support.plain import Plain
from tests.support.scene import Scene


@pytest.fixture
def front(nodes: list[Node]) -> Iterator[str]:
    with nginx(nodes[0].url, nodes[1].url) as url:
        yield url


async def forwarded(scene: Scene) -> float:
    """How many requests the nodes have handed to each other."""
    total = 0.0
    for node in scene.nodes:
        async with scene.http.get(f"{node.url}/metrics") as page:
            lines = (await page.text()).splitlines()
        total += sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("chatserver_forwarded_total")
        )
    return total


@pytest.mark.js
@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_stock_clients_talk_through_it_and_no_node_forwards(
    js: JavaScript, scene: Scene, front: str, transport: str
) -> None:
    await scene.people("alice", "bob")
    before = await forwarded(scene)
    alice = scene.keep(
        js.device("alice", front, await scene.key_of("alice"), transports=[transport])
    )
    await alice.connect(ROOMS, CHAT)
    others = [
        scene.keep(PythonDevice("bob", front, await scene.key_of("bob"), transports=[transport]))
        for _ in range(3)
    ]
    for bob in others:
        await bob.connect(ROOMS, CHAT)
    room = await alice.create_room("bob", title="Behind nginx")
    said = [await alice.say(room["id"], f"{number}") for number in range(5)]
    for device in (alice, *others):
        await device.has_seq(room["id"], said[-1]["seq"])
        assert device.texts(room["id"]) == [f"{number}" for number in range(5)]
        assert await device.transport() == transport
    assert await forwarded(scene) == before


async def test_everything_else_finds_a_node_and_figures_stay_inside(
    scene: Scene, front: str
) -> None:
    await scene.people("alice")
    async with scene.http.get(f"{front}/metrics") as figures:
        assert figures.status == 404
    async with scene.http.get(f"{front}/docs") as page:
        assert "Content-Security-Policy" in page.headers
    mine = scene.api.at(front).as_(await scene.key_of("alice"))
    room = (await mine.post("/rooms", {"type": "group"})).ok()
    assert (await mine.get(f"/rooms/{room['id']}")).ok()["id"] == room["id"]
    async with scene.http.ws_connect(f"{front}/api/v1/websocket") as socket:
        alice = Plain(socket)
        await alice.ask("connect", {"token": await scene.key_of("alice")})
        payload = {"room_id": room["id"], "content": "plain", "client_msg_id": "1"}
        assert (await alice.ask("message.send", payload, "/chat"))["ok"] is True
