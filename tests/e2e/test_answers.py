"""Answers through real processes: two stock clients, a worker killed, a node and Redis with it.

`ANSWER_CHAOS=1` goes on: the second worker is frozen, a third takes over, the second wakes up.
"""

import asyncio
import hashlib
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.integration.assistant.test_asking import events_of
from tests.support.clients import CHAT, ROOMS, Device
from tests.support.javascript import JavaScript
from tests.support.language_model import ANSWER, LanguageModelServer
from tests.support.nodes import Cluster, Node, Process, eventually
from tests.support.reader import Reader
from tests.support.scene import Scene, on_stage
from tests.support.servers import Servers, run

TEXT = ANSWER.replace(" [1]", "")
RUNNING = {"pending", "in_progress"}


class Stage(Cluster):
    """Two nodes, a worker and a scheduler, whose model is at a port where nobody listens yet."""

    def __init__(self, servers: Servers) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.model_port = taken.getsockname()[1]
        self.servers = servers
        super().__init__(
            servers.fresh_database(),
            OPENAI_BASE_URL=f"http://127.0.0.1:{self.model_port}/v1",
            # Streams that stand still must not end by themselves, however slow the machine is.
            ANSWER_TOKEN_S="120",
            ANSWER_WHOLE_S="300",
        )

    async def start(self) -> None:
        await asyncio.gather(self.nodes("a", "b"), self.workers())

    def named(self, name: str) -> Process:
        return next(each for each in self.processes if each.name == name)

    async def another_worker(self, name: str) -> Process:
        made = Process(name, ["chatserver", "worker"], self.environment, self.directory)
        self.processes.append(made)
        made.spawn()
        await eventually(lambda: made.said("worker_ready"), within_s=60, why=f"{name} works")
        return made


@pytest.fixture(scope="module")
def stage(own_servers: Servers) -> Iterator[Stage]:
    made = Stage(own_servers)
    try:
        run(made.start())
        yield made
    finally:
        made.close()
        own_servers.drop(made.database)


@pytest.fixture
async def provider(stage: Stage) -> AsyncIterator[LanguageModelServer]:
    async with LanguageModelServer(port=stage.model_port) as server:
        yield server


@pytest.fixture
async def told(stage: Stage) -> AsyncIterator[Scene]:
    nodes = [each for each in stage.processes if isinstance(each, Node)]
    async with on_stage(nodes, stage.database.secrets.operator_key) as scene:
        await _learn(scene)
        yield scene


async def _learn(scene: Scene) -> None:
    """Make a bot that knows the harbour's rules."""
    bot = (await scene.api.post("/bots", {"name": "Guide"})).ok()
    source = {"bot_id": bot["id"], "text": TEXT, "title": "Harbour rules"}
    (await scene.api.post("/documents", source)).ok()

    async def is_ready() -> bool:
        found = (await scene.api.get("/documents", bot_id=bot["id"])).ok()["items"]
        return [each["status"] for each in found] == ["ready"]

    await eventually(is_ready, within_s=60, why="the document is learnt")


async def _ask(device: Device, room_id: str, text: str = "When does the harbour open?") -> str:
    payload = {"room_id": room_id, "content": text, "client_msg_id": "q"}
    asked: str = (await device.call(CHAT, "assistant.ask", payload))["message_id"]
    return asked


async def _follow(device: Device, message_id: str, reader: Reader) -> dict[str, Any]:
    """Follow an answer by the rules, from wherever the reader stands, to its end."""
    seen = 0
    while True:
        if reader.wants_catch_up:
            said = await device.call(
                CHAT, "assistant.catch_up", {"message_id": message_id, **reader.have}
            )
            reader.catch_up(said)
            if said["status"] not in RUNNING:
                # Whoever comes after the end has it from here, and the final fact from the log.
                return {"content": reader.text}
        events = device.events[CHAT]
        for name, fact in events[seen:]:
            data = fact.get("data", {}) if isinstance(fact, dict) else {}
            if name == "message.delta" and data["message_id"] == message_id:
                reader.take(data)
            elif name == "message.progress" and data["message_id"] == message_id:
                reader.beat(data)
            elif (
                name == "message.updated"
                and data["message"]["id"] == message_id
                and data["message"]["status"] not in RUNNING
            ):
                return dict(data["message"])
        seen = len(events)
        await asyncio.sleep(0.05)


@pytest.mark.js
async def test_two_stock_clients_see_an_answer_stream_though_one_joined_late(
    stage: Stage, told: Scene, provider: LanguageModelServer, js: JavaScript
) -> None:
    provider.pause_s = 0.03
    for name in ("alice", "bob"):
        await told.key_of(name)
    alice = js.device("alice", told.nodes[0].url, await told.key_of("alice"))
    await alice.connect(ROOMS, CHAT)
    assert alice.of_type("session.ready")[0]["data"]["features"]["assistant"] is True
    room = await alice.create_room("bob", type="assistant")
    message_id = await _ask(alice, room["id"])
    await eventually(lambda: len(alice.of_type("message.delta")) >= 5)
    bob = js.device("bob", told.nodes[1].url, await told.key_of("bob"))
    await bob.connect(ROOMS, CHAT)
    finals = await asyncio.gather(
        _follow(alice, message_id, Reader()), _follow(bob, message_id, late := Reader())
    )
    assert [each["content"] for each in finals] == [ANSWER, ANSWER]
    assert ANSWER.startswith(late.text)
    [citation, *_] = finals[0]["context"]["citations"]
    assert citation["quote"] in TEXT
    deltas = [fact["data"] for fact in alice.of_type("message.delta")]
    assert [delta["index"] for delta in deltas] == list(range(1, len(deltas) + 1))
    assert "".join(delta["text"] for delta in deltas) == ANSWER
    names = [name for name, _ in alice.events[CHAT] if name.startswith("message.")]
    assert names.index("message.sources") < names.index("message.delta")
    assert alice.seqs(room["id"]) == list(range(1, len(alice.seqs(room["id"])) + 1))

    # The same over HTTP, and the message as it is stored.
    api = await told.as_user("alice", 1)
    session = (await api.post("/sessions", {})).ok()
    answer = await api.send(
        "POST",
        f"/sessions/{session['id']}/messages",
        {"content": "Do dogs need a lead?"},
        headers={"Accept": "text/event-stream"},
    )
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    text, final, _ = events_of([event.encode() for event in answer.body.split("\n\n")])
    assert text == final == ANSWER
    plain = await api.post(f"/sessions/{session['id']}/messages", {"content": "And cats?"})
    assert plain.status == 202
    stored = await api.send("GET", f"/messages/{plain.body['message_id']}/stream")
    assert stored.status == 200
    listed = (await api.get(f"/sessions/{session['id']}/messages")).ok()["items"]
    assert [each["sender"] for each in listed] == ["user", "ai", "user", "ai"]
    assert listed[1]["context"]["chunks"][0]["text"] in TEXT
    # A message that nobody asked about by command is answered, too.
    await alice.say(room["id"], "And when does it close?")
    await eventually(lambda: len(alice.of_type("message.sources")) >= 2, why="it is considered")


async def test_nothing_is_lost_or_shown_twice_whatever_dies(
    stage: Stage, told: Scene, provider: LanguageModelServer
) -> None:
    chance = random.Random(os.environ.get("ANSWER_SEED"))
    is_chaos = bool(os.environ.get("ANSWER_CHAOS"))
    # Streams stand still at random words, until whoever reads them is gone.
    provider.modes.extend([f"hold:{chance.randint(3, 40)}"] * (2 if is_chaos else 1))
    provider.pause_s = 0.02
    alice = await told.device("alice", 0)
    await told.device("bob", 1)
    room = await alice.create_room("bob", type="assistant")
    message_id = await _ask(alice, room["id"])
    following = asyncio.create_task(_follow(alice, message_id, reader := Reader()))
    await eventually(lambda: alice.of_type("message.delta"))
    second = await stage.another_worker("worker-2")
    stage.named("worker").kill()
    began = asyncio.get_running_loop().time()
    # While nobody writes, a reader's node dies, and Redis comes back empty.
    told.nodes[1].kill()
    stage.servers.valkey.restart()
    await eventually(lambda: len(provider.requests) == 2, within_s=40, why="it is taken over")
    took = asyncio.get_running_loop().time() - began
    if is_chaos:
        await _freeze(stage, provider, second)
    assert took < 15, took
    await told.nodes[1].start()
    late = await told.device("bob", 1)
    finals = await asyncio.gather(following, _follow(late, message_id, again := Reader()))
    api = await told.as_user("alice")
    stored = (await api.get(f"/messages/{message_id}")).ok()
    assert (stored["status"], stored["content"]) == ("complete", ANSWER)
    assert {each["content"] for each in finals} == {ANSWER}
    assert all(ANSWER.startswith(each.text) for each in (reader, again))
    digest = hashlib.sha256(ANSWER.encode()).hexdigest()
    assert stored["metadata"]["stream"]["sha256"] == digest
    log = (await api.get(f"/rooms/{room['id']}/events")).ok()["events"]
    assert [fact["type"] for fact in log].count("message.updated") == 1
    assert [fact["seq"] for fact in log] == list(range(1, len(log) + 1))


async def _freeze(stage: Stage, provider: LanguageModelServer, writer: Process) -> None:
    """Freeze a writer until another has taken over; then let it go on, too."""
    await stage.another_worker("worker-3")
    writer.pause()
    await eventually(lambda: len(provider.requests) == 3, within_s=40, why="taken over again")
    writer.resume()
    provider.gate.set()
