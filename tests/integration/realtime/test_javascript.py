"""The stock JavaScript client on every transport: in order, back by itself, or gone for good."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from chatserver.kernel.ids import uuid7
from tests.support.javascript import JavaScript, JsDevice
from tests.support.realtime import Node, Truth, node, until
from tests.support.servers import TestValkey

pytestmark = pytest.mark.js
TRANSPORTS: dict[str, dict[str, Any]] = {
    "default": {},
    "websocket": {"transports": ["websocket"]},
    "polling": {"transports": ["polling"]},
}


@pytest.fixture
async def js() -> AsyncIterator[JavaScript]:
    async with JavaScript() as started:
        yield started


@pytest.fixture
async def at(truth: Truth, valkey: TestValkey) -> AsyncIterator[Node]:
    async with node(truth, valkey.url) as started:
        yield started


@pytest.fixture(params=TRANSPORTS)
def device(request: pytest.FixtureRequest, js: JavaScript, at: Node) -> JsDevice:
    options = {"reconnectionDelay": 50, "reconnectionDelayMax": 100, **TRANSPORTS[request.param]}
    return js.device("ann", at.url, "ann", **options)


def seqs(device: JsDevice, room: UUID) -> list[int]:
    return [
        fact["seq"]
        for _, fact in device.events["/chat"]
        if fact.get("room_id") == str(room) and "seq" in fact
    ]


def readies(device: JsDevice) -> int:
    return [event for event, _ in device.events["/chat"]].count("session.ready")


async def test_facts_and_acks_come_in_order_also_across_the_upgrade(
    truth: Truth, at: Node, device: JsDevice
) -> None:
    room = uuid7()
    truth.join(room, "ann")
    connecting = asyncio.create_task(device.connect("/chat"))
    for _ in range(150):
        at.realtime.publish([truth.commit(room)])
        await asyncio.sleep(0.002)
    await connecting
    acks = [await device.emit("/chat", "echo", {"n": number}) for number in range(5)]
    assert [ack["data"]["n"] for ack in acks] == list(range(5))
    at.realtime.publish([truth.commit(room)])
    await until(lambda: seqs(device, room)[-1:] == [152])
    seen = seqs(device, room)
    assert seen == list(range(seen[0], 153))
    await device.close()


async def test_what_is_emitted_before_the_connect_arrives_in_order(
    at: Node, device: JsDevice
) -> None:
    acks = await device.connect_and_emit(
        "/chat", "echo", [{"room_id": "a", "n": number} for number in range(300)]
    )
    assert [ack["data"]["n"] for ack in acks] == list(range(300))
    assert [payload["n"] for _, payload in at.door.ran] == list(range(300))
    await device.close()


async def test_it_comes_back_by_itself_when_it_may_and_only_then(
    at: Node, device: JsDevice
) -> None:
    await device.connect("/rooms", "/chat")
    for reconnect in ("now", "backoff"):
        before = readies(device)
        (session,) = at.realtime.server.sessions.values()
        at.realtime.server.end(session, "server.draining", "Bye.", reconnect)
        await until(lambda before=before: readies(device) == before + 1)
    (session,) = at.realtime.server.sessions.values()
    at.realtime.server.end(session, "auth.revoked", "Gone.", "never")
    await until(lambda: ("/chat", "io server disconnect") in device.disconnects)
    await asyncio.sleep(0.4)
    assert readies(device) == 3
    assert at.realtime.server.sessions == {}
    told = [
        (fact["data"]["code"], fact["data"]["reconnect"])
        for namespace in ("/rooms", "/chat")
        for event, fact in device.events[namespace]
        if event == "session.closing"
    ]
    assert told == [
        ("server.draining", "now"),
        ("server.draining", "backoff"),
        ("auth.revoked", "never"),
    ]


async def test_a_refusal_carries_the_error_and_a_message(at: Node, js: JavaScript) -> None:
    device = js.device("nobody", at.url, None)
    await device.open()
    found = await js.do("connect", device.label, namespace="/chat", auth={})
    assert found["message"] == "Nobody has this key."
    assert found["data"]["code"] == "auth.invalid"
    found = await js.do("connect", device.label, namespace="/", auth={"token": "ann"})
    assert "/notifications" in found["message"]
    await device.close()
