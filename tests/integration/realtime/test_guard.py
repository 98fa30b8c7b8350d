"""What the stock libraries let through, and this engine does not."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import socketio

from chatserver.kernel.ids import uuid7
from chatserver.realtime.standing import MOST_VERIFIED
from tests.support.raw import PATH, acked, polling, websocket
from tests.support.realtime import Node, Person, Truth, node, until
from tests.support.servers import TestValkey

BIG = 200_000


@pytest.fixture
async def at(truth: Truth, valkey: TestValkey) -> AsyncIterator[Node]:
    async with node(truth, valkey.url, first_namespace_s=1.0) as started:
        yield started


async def test_connect_is_answered_before_anything_else(at: Node) -> None:
    async with websocket(at) as peer:
        assert json.loads((await peer.connect())[8:]).keys() == {"sid"}


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        ('42/chat,7["nothing.like_it",{}]', "event.unknown"),
        ('42/chat,7["nothing.like_it"]', "event.unknown"),
        ('42/chat,7["nothing.like_it","text"]', "event.unknown"),
        ('42/chat,7["echo"]', "payload.invalid"),
        ('42/chat,7["echo",{},{}]', "payload.invalid"),
        ('42/chat,7["echo",[]]', "payload.invalid"),
        ('42/chat,7["echo","text"]', "payload.invalid"),
        ('42/chat,7["echo",null]', "payload.invalid"),
        ('42/chat,7["echo",{"x":"%s"}]' % ("x" * BIG), "payload.too_large"),
    ],
)
async def test_what_a_person_can_send_is_answered_and_kept(
    at: Node, packet: str, code: str
) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        answer = await peer.ask(packet)
        assert (answer["ok"], answer["error"]["code"]) == (False, code)
        assert await peer.is_alive()


async def test_binary_is_refused_in_words(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        await peer.send('451-/chat,7["echo",{"x":{"_placeholder":true,"num":0}}]')
        answer = await peer.ask(b"bytes")  # type: ignore[arg-type]
        assert answer["error"]["code"] == "payload.invalid"
        assert await peer.is_alive()
        assert at.door.ran == [("echo", {"alive": True})]


@pytest.mark.parametrize(
    "frames",
    [
        ['42/chat,7["connect",{}]'],
        ['42/chat,7["disconnect",{}]'],
        ['42/chat,7["connect_error",{}]'],
        ["42/chat,7[]"],
        ["42/chat,7{}"],
        ["42/chat,7[1,{}]"],
        ["42/chat,7[[],{}]"],
        ["42/chat,7[" + "[" * 50_000],
        ['42/chat,7["echo",{]'],
        ['42/rooms,7["echo",{}]'],
        ['42["echo",{}]'],
        ['40/chat,{"token":"ann"}'],
        ["44/chat,{}"],
        ["49"],
        ["4"],
        ["0{}"],
        ["2probe"],
        ["5"],
        ["6"],
        ["9"],
        [""],
        [b"stray"],
        ['459999999999-/chat,7["echo",{}]'],
        ['455-/chat,7["echo",{}]'],
        ['451-/chat,7["echo",{"_placeholder":true,"num":5}]', b"x"],
        ['451-/chat,7["echo",{"_placeholder":true,"num":true}]', b"x"],
        ['451-/chat,7["echo",{"_placeholder":true,"num":0}]', '42/chat,7["echo",{}]'],
        ["450-/chat,0[]", "43/chat,0[]", "44"],
    ],
)
async def test_abuse_is_told_why_and_cut(at: Node, frames: list[str | bytes]) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        for frame in frames:
            await peer.send(frame)
        told = await peer.closing()
        assert told is not None
        assert (told["code"], told["reconnect"]) == ("payload.invalid", "backoff")
        assert at.door.ran == []
        await until(lambda: at.realtime.server.sessions == {})
        assert at.realtime.hub.listeners == {}


async def test_acks_that_nobody_asked_for_do_nothing(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        for packet in ("43/chat,0[]", "43/chat,99[1]", "43/chat,[]"):
            await peer.send(packet)
        assert await peer.is_alive()
        assert at.realtime.server.forged_acks == 3


async def test_no_event_runs_before_the_connect_is_accepted(at: Node) -> None:
    at.door.accepting_s = 0.3
    async with websocket(at) as peer:
        await peer.send('40/chat,{"token":"ann"}')
        await peer.send('42/chat,7["echo",{}]')
        await asyncio.sleep(0.15)
        assert at.door.ran == []
        assert (await peer.receive()).startswith("40/chat,")
        assert "session.ready" in await peer.receive()
        assert acked(await peer.receive())["ok"]
    async with polling(at) as peer:
        slow = asyncio.create_task(peer.post('40/chat,{"token":"ann"}'))
        await asyncio.sleep(0.1)
        assert await peer.post('42/chat,7["echo",{"early":1}]') == 400
        await slow
        assert ("echo", {"early": 1}) not in at.door.ran


@pytest.mark.parametrize("fault", [RuntimeError("bug"), TimeoutError(), ConnectionError("db away")])
async def test_any_fault_while_authenticating_is_a_refusal(at: Node, fault: Exception) -> None:
    at.door.fault = fault
    async with websocket(at) as peer:
        answer = await peer.connect()
        assert answer.startswith("44/chat,")
        refusal = json.loads(answer[8:])
        assert refusal.keys() == {"message", "data"}
        assert refusal["data"]["code"] in {"internal.error", "unavailable"}
        assert "bug" not in answer
        await peer.send('42/chat,7["echo",{}]')
        assert await peer.closing() is None
        assert at.door.ran == []


async def test_the_root_and_unknown_namespaces_are_refused_with_directions(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.send("40")
        root = json.loads((await peer.receive())[2:])
        for name in ("/rooms", "/chat", "/notifications"):
            assert name in root["message"]
        await peer.send("40/admin,")
        other = json.loads((await peer.receive())[len("44/admin,") :])
        assert other["message"] == "Invalid namespace"
        assert other["data"]["code"] == "namespace.unknown"
        assert (await peer.connect()).startswith("40/chat,")


async def test_who_connects_no_namespace_is_sent_away(at: Node) -> None:
    async with websocket(at) as peer:
        assert await peer.receive(within_s=3) == ""
    async with websocket(at) as peer:
        await peer.connect()
        await asyncio.sleep(1.2)
        assert await peer.is_alive()
        await peer.send("41/chat,")
        assert await peer.receive(within_s=3) == ""


async def test_one_token_is_verified_once_and_another_must_be_the_same_persons(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect("ann", "/rooms")
        await peer.connect("ann", "/chat")
        assert len(at.door.accepted) == 1
        assert (await peer.connect("ben", "/notifications")).startswith("44/notifications,")
        assert (await peer.connect("ann#2", "/notifications")).startswith("40/notifications,")
        assert await peer.is_alive()


async def test_a_namespace_can_be_left_and_entered_again(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect("ann", "/rooms")
        await peer.connect()
        await peer.send("41/chat,")
        await peer.send('42/chat,7["echo",{"on":"its way"}]')
        assert (await peer.connect()).startswith("40/chat,")
        assert await peer.is_alive()
        assert len(at.realtime.hub.listeners) == 1


async def test_a_connection_does_not_keep_every_credential_that_it_ever_brought(at: Node) -> None:
    """A27: whoever enters again and again with other credentials must not fill the memory."""
    async with websocket(at) as peer:
        await peer.connect("ann", "/rooms")
        for number in range(60):
            answer = await peer.connect(f"ann#{number}", "/chat")
            assert answer.startswith("40/chat,")
            await peer.send("41/chat,")
        [session] = at.realtime.sessions()
        assert len(session.verified) <= MOST_VERIFIED
        # What a namespace came with counts for as long as that is there.
        assert ("ann", None) in session.verified
        assert (await peer.connect("ann", "/chat")).startswith("40/chat,")
        assert await peer.is_alive()


async def test_commands_keep_their_order_in_a_room_and_do_not_wait_for_another(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        await peer.send('42/chat,1["slow",{"room_id":"a","s":0.3}]')
        await peer.send('42/chat,2["echo",{"room_id":"a"}]')
        await peer.send('42/chat,3["echo",{"room_id":"b"}]')
        order = [(await peer.receive())[8] for _ in range(3)]
        assert order == ["3", "1", "2"]


async def test_too_many_commands_at_once_are_refused_and_nothing_is_cut(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        await peer.send('42/chat,0["slow",{"s":0.5}]')
        for number in range(1, 1500):
            await peer.send(f'42/chat,{number}["echo",{{}}]')
        answers = [json.loads((await peer.receive()).partition("[")[2][:-1]) for _ in range(1500)]
        refused = [answer for answer in answers if not answer["ok"]]
        assert len(refused) == 1500 - 1024
        assert {answer["error"]["code"] for answer in refused} == {"rate.limited"}
        assert all(answer["error"]["retry_after_ms"] for answer in refused)
        assert await peer.is_alive()


async def test_a_frame_beyond_the_limit_closes_with_its_code(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        await peer.send("4" + "x" * 300_000)
        while await peer.receive():
            pass
        assert peer.socket.close_code == 1009


async def test_compression_is_not_offered(at: Node) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{at.url}{PATH}&transport=websocket", compress=15) as socket,
    ):
        assert socket.compress == 0


async def test_a_flood_of_pongs_is_cut(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        with_flood = asyncio.create_task(_flood(peer))
        told = await peer.closing()
        with_flood.cancel()
        assert told is not None
        assert "too many packets" in told["reason"]


async def _flood(peer: Any) -> None:
    for _ in range(40_000):
        await peer.send("3")


async def test_a_socket_that_does_not_read_is_bounded_and_told_to_come_back(
    truth: Truth, at: Node
) -> None:
    room = uuid7()
    truth.join(room, "ann", "ben")
    ben = await Person("ben").connect(at)
    host, port = at.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(
        f"GET {PATH}&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    connect = b'40/chat,{"token":"ann"}'
    writer.write(bytes([0x81, 0x80 | len(connect), 0, 0, 0, 0]) + connect)
    await until(lambda: len(at.realtime.hub.listeners) == 2)
    (slow,) = [
        session
        for session in at.realtime.server.sessions.values()
        if session.first is not None and session.first.name == "ann"
    ]
    most = 0
    while not slow.ended:
        at.realtime.publish([truth.commit(room, text="x" * 60_000)])
        most = max(most, slow.socket.outbox.held)
        assert len(truth.facts[room]) < 500, "a socket that does not read was never ended"
        await until(lambda: ben.seqs(room) == list(range(2, len(truth.facts[room]) + 1)))
    assert most <= 1 << 20
    await until(lambda: slow.eio_sid not in at.realtime.server.sessions, 4)
    writer.transport.abort()
    await ben.leave()


async def test_a_slow_reader_that_reads_again_is_told(truth: Truth, at: Node) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with polling(at) as peer:
        await peer.connect()
        for _ in range(150):
            at.realtime.publish([truth.commit(room, text="x" * 10_000)])
        _, packets = await peer.get()
        assert "slow_consumer" in packets[-1]
        assert (await peer.get())[0] == 400


async def test_a_slow_reader_that_drains_is_ended_and_not_left_with_a_hole(
    truth: Truth, at: Node
) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with polling(at) as peer:
        await peer.connect()
        (session,) = at.realtime.server.sessions.values()
        at.realtime.server.end(session, "server.draining", "Bye.", "now", after_ms=60_000)
        for _ in range(150):
            at.realtime.publish([truth.commit(room, text="x" * 10_000)])
        assert session.socket.ending
        await until(lambda: at.realtime.server.sessions == {}, 4)


@pytest.mark.parametrize("pieces", [2, 7])
@pytest.mark.parametrize("size", [3_000, 20_000, 120_000])
async def test_a_post_in_segments_arrives_whole(at: Node, size: int, pieces: int) -> None:
    async with polling(at) as peer:
        await peer.connect()
        text = "x" * size
        body = f'42/chat,7["echo",{{"x":"{text}"}}]'.encode()

        async def segments() -> AsyncIterator[bytes]:
            step = len(body) // pieces + 1
            for start in range(0, len(body), step):
                yield body[start : start + step]
                await asyncio.sleep(0.01)

        assert await peer.post(segments()) == 200
        _, packets = await peer.get()
        assert len(acked(packets[0])["data"]["x"]) == size


async def test_a_post_may_hold_many_packets(at: Node) -> None:
    async with polling(at) as peer:
        await peer.connect()
        body = "\x1e".join(f'42/chat,["echo",{{"n":{number}}}]' for number in range(500))
        assert await peer.post(body) == 200
        await until(lambda: len(at.door.ran) == 500)
        assert [payload["n"] for _, payload in at.door.ran] == list(range(500))


@pytest.mark.parametrize(
    "body", [b"4\xff\xfe", b"9", b"", b"\x1e".join([b"3"] * 1025), b'42/chat,7["connect",{}]']
)
async def test_a_bad_post_is_refused_and_ends_the_session(at: Node, body: bytes) -> None:
    async with polling(at) as peer:
        await peer.connect()
        assert await peer.post(body) == 400
        await until(lambda: at.realtime.server.sessions == {})
        assert (await peer.get())[0] == 400


async def test_a_post_beyond_the_limit_is_refused_at_once(at: Node) -> None:
    async with polling(at) as peer:
        await peer.connect()
        async with asyncio.timeout(2):
            assert await peer.post(b"4" * 300_000) == 413


async def test_only_one_poll_and_no_jsonp(at: Node) -> None:
    async with polling(at) as peer:
        await peer.connect()
        first = asyncio.create_task(peer.get())
        await asyncio.sleep(0.1)
        assert (await peer.get())[0] == 400
        status, packets = await first
        assert status == 200
        assert "session.closing" in packets[0]
        async with peer.http.get(f"{at.url}{PATH}&transport=polling&j=0") as response:
            assert response.status == 400


async def test_a_websocket_without_a_probe_holds_nothing_up(truth: Truth, at: Node) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with polling(at) as peer:
        await peer.connect()
        sid = peer.url.partition("&sid=")[2]
        async with websocket(at, f"&sid={sid}") as silent:
            at.realtime.publish([truth.commit(room)])
            _, packets = await peer.get()
            assert "message.created" in packets[0]
            await silent.send("4nonsense")
            assert await silent.receive() == ""
        at.realtime.publish([truth.commit(room)])
        assert "message.created" in (await peer.get())[1][0]


async def test_a_stock_client_upgrades_and_loses_nothing(truth: Truth, at: Node) -> None:
    room = uuid7()
    truth.join(room, "ann")
    ann = Person("ann")
    connecting = asyncio.create_task(ann.connect(at, "polling", "websocket"))
    for _ in range(100):
        at.realtime.publish([truth.commit(room)])
        await asyncio.sleep(0.002)
    await connecting
    assert ann.client.transport() == "websocket"
    for _ in range(20):
        at.realtime.publish([truth.commit(room)])
    await until(lambda: bool(ann.seqs(room)) and ann.seqs(room)[-1] == 121)
    seqs = ann.seqs(room)
    assert seqs == list(range(seqs[0], 122))
    assert (await ann.call("echo", {"n": 1})) == {"ok": True, "data": {"n": 1}}
    await ann.leave()


async def test_polling_alone_works_with_a_stock_client(truth: Truth, at: Node) -> None:
    room = uuid7()
    truth.join(room, "ann")
    ann = await Person("ann").connect(at, "polling")
    for _ in range(50):
        at.realtime.publish([truth.commit(room)])
    await until(lambda: ann.seqs(room) == list(range(2, 52)))
    assert (await ann.call("echo", {"n": 1})) == {"ok": True, "data": {"n": 1}}
    await ann.leave()
    await until(lambda: at.realtime.server.sessions == {})


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_stock_client_comes_back_when_it_may(
    truth: Truth, at: Node, transport: str
) -> None:
    client = socketio.AsyncClient(
        reconnection_delay=0.05, reconnection_delay_max=0.1, http_session=at.http
    )
    connects: list[bool] = []
    client.on("connect", lambda: connects.append(True), namespace="/chat")
    await client.connect(
        at.url, auth={"token": "ann"}, namespaces=["/chat"], transports=[transport]
    )
    (session,) = at.realtime.server.sessions.values()
    at.realtime.server.end(session, "server.draining", "Bye.", "now")
    await until(lambda: len(connects) == 2)
    (session,) = at.realtime.server.sessions.values()
    at.realtime.server.end(session, "auth.revoked", "Gone.", "never")
    await until(lambda: not client.connected)
    await asyncio.sleep(0.3)
    assert len(connects) == 2
    await client.disconnect()


async def test_a_silent_peer_times_out_and_leaves_nothing(truth: Truth, valkey: TestValkey) -> None:
    async with node(truth, valkey.url, ping_interval=0.2, ping_timeout=0.3) as at:
        async with websocket(at) as peer:
            await peer.connect()
            await until(lambda: at.realtime.server.sessions == {}, 3)
            while await peer.receive():
                pass
        assert at.realtime.server.eio.sockets == {}
        assert at.realtime.hub.listeners == {}


async def test_a_command_that_ends_after_its_socket_hurts_nobody(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        await peer.send('42/chat,7["slow",{"s":0.2}]')
        await until(lambda: bool(at.door.ran))
    await until(lambda: at.realtime.server.sessions == {})
    await asyncio.sleep(0.3)
    async with websocket(at) as peer:
        await peer.connect()
        assert await peer.is_alive()


async def test_a_session_that_ends_while_it_connects_is_not_left_behind(at: Node) -> None:
    at.door.accepting_s = 0.3
    async with websocket(at) as peer:
        await peer.send('40/chat,{"token":"ann"}')
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert at.realtime.hub.listeners == {}
    assert at.realtime.server.sessions == {}
    assert at.realtime.server.manager.rooms == {}
