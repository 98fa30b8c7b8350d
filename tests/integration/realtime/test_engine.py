"""Two nodes, one Redis, stock clients: everyone sees the same, whatever becomes of Redis."""

import asyncio
import time
from typing import Any

import redis.asyncio
import socketio

from chatserver.kernel.events import Committed
from chatserver.kernel.ids import uuid7
from chatserver.realtime.envelope import Kind, Seal, fact_body
from chatserver.realtime.ports import Closing
from chatserver.realtime.publisher import BusPublisher, BusSettings, bucket
from tests.support.proxy import Proxy
from tests.support.realtime import CLIENT, Person, Truth, node, until, user_id
from tests.support.servers import TestValkey


def through(line: Proxy) -> str:
    return f"redis://127.0.0.1:{line.port}/0"


async def test_members_on_two_nodes_see_one_room_in_one_order(
    truth: Truth, valkey: TestValkey
) -> None:
    room = uuid7()
    truth.join(room, "ann", "ben")
    async with node(truth, valkey.url, "a") as a, node(truth, valkey.url, "b") as b:
        ann = await Person("ann").connect(a)
        ben = await Person("ben").connect(b)
        for count in range(200):
            (a if count % 2 else b).realtime.publish([truth.commit(room)])
        await until(lambda: len(ann.seqs(room)) == 200 and len(ben.seqs(room)) == 200)
        assert ann.seqs(room) == ben.seqs(room) == list(range(2, 202))
        assert b.realtime.bus.counters.forged == 0
        await ann.leave()
        await ben.leave()


async def test_an_invitation_reaches_a_node_that_did_not_know_the_room(
    truth: Truth, valkey: TestValkey
) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with node(truth, valkey.url, "a") as a, node(truth, valkey.url, "b") as b:
        ben = await Person("ben").connect(b)
        a.realtime.publish([truth.join(room, "ben")])
        a.realtime.publish([truth.commit(room)])
        await until(lambda: ben.seqs(room) == [2, 3])
        a.realtime.publish([truth.leave(room, "ben")])
        a.realtime.publish([truth.commit(room)])
        await until(lambda: ben.seqs(room) == [2, 3, 4])
        await asyncio.sleep(0.1)
        assert ben.seqs(room) == [2, 3, 4]
        await ben.leave()


async def test_a_fact_too_large_for_the_bus_is_read_from_the_log(
    truth: Truth, valkey: TestValkey
) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with node(truth, valkey.url, "a") as a, node(truth, valkey.url, "b") as b:
        ann = await Person("ann").connect(b)
        a.realtime.publish([truth.commit(room, text="x" * 70_000)])
        await until(lambda: ann.seqs(room) == [2])
        assert len(ann.events[-1][1]["data"]) == 70_000
        assert b.realtime.recovery.repaired == 1
        await ann.leave()


async def test_a_worker_shows_facts_without_a_hub(truth: Truth, valkey: TestValkey) -> None:
    room = uuid7()
    truth.join(room, "ann")
    settings = BusSettings(url=valkey.url, key=b"k" * 32, prefix="test")
    worker = BusPublisher(settings, "worker")
    await worker.start()
    async with node(truth, valkey.url) as a:
        ann = await Person("ann").connect(a)
        worker.publish([truth.commit(room)])
        await until(lambda: ann.seqs(room) == [2])
        await ann.leave()
    await worker.stop()
    assert worker.counters.dropped == 0


async def test_a_stranger_on_redis_is_ignored_and_counted(truth: Truth, valkey: TestValkey) -> None:
    room = uuid7()
    truth.join(room, "ann")
    fact = Committed(
        client_id=CLIENT, room_id=room, seq=2, type="message.created", body=b'{"forged":1}'
    )
    async with node(truth, valkey.url) as a:
        ann = await Person("ann").connect(a)
        stranger = redis.asyncio.Redis.from_url(valkey.url)
        channel = f"{a.realtime.bus.publisher.prefix}:r{bucket(room)}"
        forged = Seal(b"other key", b"b").close(Kind.FACT, room.bytes, fact_body(fact))
        for data in (forged, b"", b"x" * 100, room.bytes + b"\0" * 30):
            await stranger.publish(channel, data)
        heard = a.realtime.bus.counters
        await until(lambda: (heard.forged, heard.strangers) == (3, 1))
        assert ann.seqs(room) == []
        await stranger.aclose()
        await ann.leave()


async def test_closing_reaches_a_users_sockets_on_every_node(
    truth: Truth, valkey: TestValkey
) -> None:
    async with node(truth, valkey.url, "a") as a, node(truth, valkey.url, "b") as b:
        people = [await Person("ann").connect(at) for at in (a, b)]
        other = await Person("ben").connect(b)
        gone = Closing(code="auth.revoked", reason="Revoked.", user_id=user_id("ann"))
        a.realtime.close(gone)
        await until(lambda: not any(each.client.connected for each in people))
        for each in people:
            event, fact = each.events[-1]
            assert event == "session.closing"
            assert fact["data"]["code"] == "auth.revoked"
            assert fact["data"]["reconnect"] == "never"
        assert other.client.connected
        assert len(a.realtime.server.sessions) == 0
        await other.leave()


async def test_what_a_dead_redis_swallows_is_repaired_within_seconds(
    truth: Truth, line: Proxy
) -> None:
    room = uuid7()
    truth.join(room, "ann", "ben")
    url = through(line)
    async with node(truth, url, "a") as a, node(truth, url, "b") as b:
        ann = await Person("ann").connect(a)
        ben = await Person("ben").connect(b)
        line.refuse()
        await until(lambda: not b.realtime.bus.healthy)
        started = time.monotonic()
        for _ in range(20):
            a.realtime.publish([truth.commit(room)])
        assert time.monotonic() - started < 0.1
        a.realtime.publish([truth.join(room, "cas")])
        await until(lambda: len(ann.seqs(room)) == 21)
        await until(lambda: ben.seqs(room) == list(range(2, 23)))
        carol = await Person("cas").connect(b)
        line.heal()
        await until(lambda: a.realtime.bus.healthy and b.realtime.bus.healthy)
        a.realtime.publish([truth.commit(room)])
        await until(lambda: carol.seqs(room) == [23] and ben.seqs(room)[-1] == 23, 2)
        for each in (ann, ben, carol):
            await each.leave()


async def test_a_half_open_line_is_found_by_the_heartbeat(truth: Truth, line: Proxy) -> None:
    room = uuid7()
    truth.join(room, "ann")
    url = through(line)
    async with node(truth, url, "a", heartbeat_s=0.2) as a:
        ann = await Person("ann").connect(a)
        line.blackhole()
        truth.commit(room)
        await until(lambda: not a.realtime.bus.healthy, 3)
        await until(lambda: ann.seqs(room) == [2], 3)
        line.heal()
        await until(lambda: a.realtime.bus.healthy, 5)
        await ann.leave()


async def test_redis_killed_and_back_empty_is_subscribed_to_again(
    truth: Truth, valkey: TestValkey
) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with node(truth, valkey.url, "a") as a, node(truth, valkey.url, "b") as b:
        ann = await Person("ann").connect(b)
        await asyncio.to_thread(valkey.kill)
        a.realtime.publish([truth.commit(room)])
        valkey.start()
        await until(lambda: ann.seqs(room) == [2], 8)
        await until(lambda: a.realtime.bus.healthy and b.realtime.bus.healthy, 8)
        a.realtime.publish([truth.commit(room)])
        await until(lambda: ann.seqs(room) == [2, 3], 1)
        await ann.leave()


async def test_a_frozen_redis_delays_no_publish(truth: Truth, valkey: TestValkey) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with node(truth, valkey.url, "a") as a:
        ann = await Person("ann").connect(a)
        valkey.pause()
        try:
            for _ in range(100):
                a.realtime.publish([truth.commit(room)])
            await until(lambda: len(ann.seqs(room)) == 100, 1)
        finally:
            valkey.resume()
        await ann.leave()


async def test_lost_last_facts_and_invitations_are_found_by_the_change_list(
    truth: Truth, valkey: TestValkey
) -> None:
    known, new = uuid7(), uuid7()
    truth.join(known, "ann")
    truth.join(new, "ben")
    async with (
        node(truth, valkey.url, "a", list_every_s=0.2),
        node(truth, valkey.url, "b", leads=False) as b,
    ):
        ann = await Person("ann").connect(b)
        truth.commit(known)
        truth.commit(new)
        truth.join(new, "ann")
        truth.commit(new)
        await until(lambda: ann.seqs(known) == [2] and ann.seqs(new) == [3, 4], 4)
        truth.leave(new, "ann")
        truth.commit(new)
        await until(lambda: ann.seqs(new) == [3, 4, 5], 4)
        await asyncio.sleep(0.5)
        assert ann.seqs(new) == [3, 4, 5]
        await ann.leave()


async def test_nobody_is_let_in_while_the_log_is_away(truth: Truth, valkey: TestValkey) -> None:
    async with node(truth, valkey.url) as a:
        truth.away = True
        person = Person("ann")
        person.client.eio.http, person.client.eio.external_http = a.http, True
        refusals: list[Any] = []
        person.client.on("connect_error", refusals.append, namespace="/chat")
        try:
            await person.client.connect(
                a.url, auth={"token": "ann"}, namespaces=["/chat"], transports=["websocket"]
            )
        except socketio.exceptions.ConnectionError:
            await until(lambda: bool(refusals))
        assert refusals[0]["data"]["code"] == "unavailable"
        assert refusals[0]["data"]["retryable"] is True
        assert a.realtime.hub.listeners == {}
        truth.away = False
        again = await Person("ann").connect(a)
        await again.leave()


async def test_the_engine_starts_and_serves_without_redis(truth: Truth) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with node(truth, "redis://127.0.0.1:1/0") as a:
        assert not a.realtime.bus.healthy
        ann = await Person("ann").connect(a)
        a.realtime.publish([truth.commit(room)])
        await until(lambda: ann.seqs(room) == [2])
        await ann.leave()


async def test_draining_tells_everyone_and_ends_in_time(truth: Truth, valkey: TestValkey) -> None:
    async with node(truth, valkey.url) as a:
        people = [await Person(f"p{count}").connect(a) for count in range(5)]
        people.append(await Person("poll").connect(a, "polling"))
        started = time.monotonic()
        await a.realtime.stop(within_s=1.5)
        assert time.monotonic() - started < 3
        await until(lambda: not any(each.client.connected for each in people))
        for each in people:
            closing = [fact["data"] for event, fact in each.events if event == "session.closing"]
            assert [(found["code"], found["reconnect"]) for found in closing] == [
                ("server.draining", "now")
            ]


async def test_a_command_can_watch_a_room_for_its_connection(
    truth: Truth, valkey: TestValkey
) -> None:
    room = uuid7()
    truth.commit(room)
    async with node(truth, valkey.url, "a") as a, node(truth, valkey.url, "b") as b:

        async def watch(_: Any) -> Any:
            return {"after": await b.realtime.watch(room)}

        async def unwatch(_: Any) -> Any:
            await b.realtime.unwatch(room)

        b.door.commands.update({"room.watch": watch, "room.unwatch": unwatch})
        ann, other = await Person("ann").connect(b), await Person("ann").connect(b)
        assert (await ann.call("room.watch", {})) == {"ok": True, "data": {"after": 1}}
        a.realtime.publish([truth.commit(room)])
        await until(lambda: ann.seqs(room) == [2])
        await ann.call("room.unwatch", {})
        a.realtime.publish([truth.commit(room)])
        await asyncio.sleep(0.1)
        assert (ann.seqs(room), other.seqs(room)) == ([2], [])
        assert b.realtime.hub.streams == {}
        await ann.leave()
        await other.leave()


async def test_only_so_many_rooms_can_be_watched(truth: Truth, valkey: TestValkey) -> None:
    async with node(truth, valkey.url) as a:

        async def watch(_: Any) -> Any:
            await a.realtime.watch(uuid7())

        a.door.commands["room.watch"] = watch
        ann = await Person("ann").connect(a)
        answers = [await ann.call("room.watch", {}) for _ in range(101)]
        assert [answer["ok"] for answer in answers] == [True] * 100 + [False]
        assert answers[-1]["error"]["code"] == "quota.exceeded"
        await ann.leave()
        await until(lambda: a.realtime.hub.streams == {})


async def test_two_thousand_facts_by_two_nodes_arrive_in_order_at_every_member(
    truth: Truth, valkey: TestValkey
) -> None:
    room = uuid7()
    names = [f"u{count}" for count in range(6)]
    truth.join(room, *names)
    async with node(truth, valkey.url, "a") as a, node(truth, valkey.url, "b") as b:
        people = [await Person(name).connect(a if at % 2 else b) for at, name in enumerate(names)]

        async def send(at: Any, count: int) -> None:
            for _ in range(count):
                at.realtime.publish([truth.commit(room)])
                await asyncio.sleep(0)

        await asyncio.gather(*(send(at, 100) for at in (a, b) for _ in range(10)))
        expected = list(range(2, 2002))
        await until(lambda: all(len(each.seqs(room)) >= 2000 for each in people), 20)
        assert all(each.seqs(room) == expected for each in people)
        for each in people:
            await each.leave()
