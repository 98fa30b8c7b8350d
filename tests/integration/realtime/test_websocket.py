"""The plain WebSocket door: the same commands, facts and limits, one JSON object a frame."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chatserver.kernel.ids import uuid7
from chatserver.realtime.engine import Realtime
from chatserver.realtime.ports import Closing
from chatserver.transport.answers import answers
from chatserver.transport.websocket import PATH, WebSocketDoor
from tests.support.realtime import NamingDoor, Node, Person, Truth, node, until, user_id
from tests.support.servers import TestValkey

NAMESPACES = ("/rooms", "/chat", "/notifications")
ROOM = uuid7()


def furnish(app: web.Application, realtime: Realtime, door: NamingDoor) -> None:
    app.middlewares.append(answers(bypass=("/socket.io/",)))
    WebSocketDoor(
        realtime=realtime,
        door=door,
        namespaces=NAMESPACES,
        first_s=0.5,
    ).attach(app)


class Plain:
    """A client that has nothing but a WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.facts: list[dict[str, Any]] = []
        self.answers: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self.reader = asyncio.create_task(self._read())
        self._id = 0

    async def _read(self) -> None:
        async for message in self.socket:
            frame = json.loads(message.data)
            if "id" in frame:
                self.answers.setdefault(frame["id"], self._future()).set_result(frame)
            else:
                assert set(frame) == {"ns", "event", "data"}
                self.facts.append(frame)

    @staticmethod
    def _future() -> "asyncio.Future[dict[str, Any]]":
        return asyncio.get_running_loop().create_future()

    async def ask(self, event: str, data: Any = None, ns: str | None = None) -> dict[str, Any]:
        self._id += 1
        frame = {"id": self._id, "event": event, "data": {} if data is None else data}
        await self.socket.send_str(json.dumps(frame if ns is None else frame | {"ns": ns}))
        return await self.answer(self._id)

    async def answer(self, number: Any) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await self.answers.setdefault(number, self._future())

    async def connect(self, token: str = "ann", ns: str | None = None) -> dict[str, Any]:
        return await self.ask("connect", {"token": token}, ns)

    def seqs(self, ns: str = "/chat") -> list[int]:
        return [f["data"]["seq"] for f in self.facts if f["ns"] == ns and "seq" in f["data"]]

    def events(self, ns: str) -> list[str]:
        return [fact["event"] for fact in self.facts if fact["ns"] == ns]

    async def closed(self) -> int | None:
        async with asyncio.timeout(5):
            await self.reader
        return self.socket.close_code


@pytest.fixture
async def at(truth: Truth, valkey: TestValkey) -> AsyncIterator[Node]:
    assert valkey.port is not None
    async with node(truth, f"redis://127.0.0.1:{valkey.port}/0", furnish=furnish) as made:
        yield made


@asynccontextmanager
async def plain(at: Node, **options: Any) -> AsyncIterator[Plain]:
    async with at.http.ws_connect(at.url + PATH, **options) as socket:
        made = Plain(socket)
        yield made
        made.reader.cancel()


class TestConnecting:
    async def test_one_connect_opens_all_three_namespaces(self, at: Node) -> None:
        async with plain(at) as ann:
            answer = await ann.connect()
            assert answer == {"id": 1, "ok": True, "data": {"namespaces": list(NAMESPACES)}}
            await until(lambda: len(ann.facts) == 3)
            assert [fact["event"] for fact in ann.facts] == ["session.ready"] * 3
            assert {fact["ns"] for fact in ann.facts} == set(NAMESPACES)

    async def test_a_namespace_may_be_connected_alone(self, at: Node) -> None:
        async with plain(at) as ann:
            assert (await ann.connect(ns="/chat"))["data"] == {"namespaces": ["/chat"]}
            refused = await ann.ask("echo", ns="/rooms")
            assert refused["error"]["code"] == "event.unknown"

    async def test_nothing_runs_before_the_connect(self, at: Node) -> None:
        async with plain(at) as ann:
            answer = await ann.ask("echo", {"a": 1}, "/chat")
            assert answer["ok"] is False
            assert at.door.ran == []

    async def test_a_refused_token_is_told_and_the_socket_closed(self, at: Node) -> None:
        async with plain(at) as ann:
            answer = await ann.connect(token="")
            assert answer["error"]["code"] == "auth.invalid"
            assert await ann.closed() == 4001

    async def test_another_person_is_refused_and_the_first_stays(self, at: Node) -> None:
        async with plain(at) as ann:
            await ann.connect("ann", "/chat")
            assert (await ann.connect("bob", "/rooms"))["ok"] is False
            assert (await ann.ask("echo", {"a": 1}, "/chat"))["ok"] is True

    async def test_who_says_nothing_is_closed(self, at: Node) -> None:
        async with plain(at) as ann:
            assert await ann.closed() == 1008

    async def test_a_request_that_is_no_websocket_gets_a_problem(self, at: Node) -> None:
        async with at.http.get(at.url + PATH) as response:
            assert response.status == 400
            assert response.content_type == "application/problem+json"


class TestCommands:
    async def test_an_answer_has_the_id_of_its_command(self, at: Node) -> None:
        async with plain(at) as ann:
            await ann.connect()
            await ann.socket.send_json(
                {"id": "x", "ns": "/chat", "event": "echo", "data": {"a": [1]}}
            )
            assert await ann.answer("x") == {"id": "x", "ok": True, "data": {"a": [1]}}

    async def test_commands_of_a_room_keep_their_order_and_others_overtake(self, at: Node) -> None:
        async with plain(at) as ann:
            await ann.connect()
            slow = {"id": 90, "ns": "/chat", "event": "slow", "data": {"room_id": "a", "s": 0.3}}
            await ann.socket.send_json(slow)
            await ann.socket.send_json(
                {"id": 91, "ns": "/chat", "event": "echo", "data": {"room_id": "a"}}
            )
            await ann.socket.send_json(
                {"id": 92, "ns": "/chat", "event": "echo", "data": {"room_id": "b"}}
            )
            await ann.answer(91)
            assert list(ann.answers)[-3:] == [92, 90, 91] or ann.answers[92].done()
            assert ann.answers[90].done()

    @pytest.mark.parametrize(
        "frame",
        [
            {"id": 7, "event": "echo", "ns": "/chat", "data": []},
            {"id": 7, "event": 4, "ns": "/chat"},
            {"id": 7, "event": "echo", "ns": 1},
            {"id": 7, "event": "echo", "ns": "/chat", "more": 1},
        ],
    )
    async def test_a_bad_frame_is_answered_and_nothing_is_cut(self, at: Node, frame: Any) -> None:
        async with plain(at) as ann:
            await ann.connect()
            await ann.socket.send_json(frame)
            assert (await ann.answer(7))["error"]["code"] == "payload.invalid"
            assert (await ann.ask("echo", {}, "/chat"))["ok"] is True

    async def test_a_large_command_is_refused_and_a_larger_frame_closes(self, at: Node) -> None:
        async with plain(at) as ann:
            await ann.connect()
            large = await ann.ask("echo", {"text": "x" * 130 * 1024}, "/chat")
            assert large["error"]["code"] == "payload.too_large"
            await ann.socket.send_str("x" * 257 * 1024)
            assert await ann.closed() == 1009

    @pytest.mark.parametrize(("text", "code"), [("{", 1007), ("[]", 1007)])
    async def test_what_is_no_object_closes(self, at: Node, text: str, code: int) -> None:
        async with plain(at) as ann:
            await ann.connect()
            await ann.socket.send_str(text)
            assert await ann.closed() == code

    async def test_too_many_pending_commands_are_refused(self, at: Node) -> None:
        async with plain(at) as ann:
            await ann.connect()
            for number in range(1100):
                await ann.socket.send_json(
                    {"id": 1000 + number, "ns": "/chat", "event": "slow", "data": {"s": 0.0}}
                    if number
                    else {"id": 1000, "ns": "/chat", "event": "slow", "data": {"s": 0.5}}
                )
            last = await ann.answer(2099)
            assert last["error"]["code"] == "rate.limited"
            assert last["error"]["retry_after_ms"] > 0


class TestFacts:
    async def test_facts_come_in_order_to_both_doors(self, at: Node, truth: Truth) -> None:
        truth.join(ROOM, "ann", "bob")
        bob = await Person("bob").connect(at)
        async with plain(at) as ann:
            await ann.connect()
            for _ in range(20):
                at.realtime.publish([truth.commit(ROOM, text="hé")])
            at.realtime.publish([truth.commit(ROOM, "room.updated")])
            await until(lambda: len(ann.seqs()) == 21 and len(bob.seqs(ROOM)) == 21)
            assert ann.seqs() == bob.seqs(ROOM) == list(range(2, 23))
            assert ann.seqs("/rooms") == [22]
            bodies = [fact["data"] for fact in ann.facts if fact["event"] == "message.created"]
            assert bodies == [fact for event, fact in bob.events if event == "message.created"]
        await bob.leave()

    async def test_who_does_not_read_is_closed_and_costs_nobody(
        self, at: Node, truth: Truth
    ) -> None:
        truth.join(ROOM, "ann", "bob")
        async with plain(at) as ann, plain(at) as bob:
            await ann.connect()
            await bob.connect()
            ann.reader.cancel()
            await until(lambda: len(at.realtime.sessions()) == 2)
            for _ in range(120):
                at.realtime.publish([truth.commit(ROOM, text="x" * 60_000)])
                await asyncio.sleep(0.005)
            await until(lambda: len(bob.seqs()) == 120)
            await until(lambda: len(at.realtime.sessions()) == 1)

    async def test_a_closing_is_told_and_the_code_says_whether_to_come_back(self, at: Node) -> None:
        async with plain(at) as ann, plain(at) as bob:
            await ann.connect("ann")
            await bob.connect("bob")
            at.realtime.close(Closing(code="auth.revoked", reason="r", kid="ann"))
            assert await ann.closed() == 1008
            assert ann.facts[-1]["event"] == "session.closing"
            assert ann.facts[-1]["data"]["data"]["reconnect"] == "never"
            at.realtime.close(
                Closing(code="x", reason="r", reconnect="now", user_id=user_id("bob"))
            )
            assert await bob.closed() == 1012
            await until(lambda: not at.realtime.hub.listeners)
