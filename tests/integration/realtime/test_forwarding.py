"""A session lives on one node; its requests may reach any."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chatserver.realtime.engine import Realtime
from chatserver.realtime.nodes import NodeRegistry, owner_of
from chatserver.realtime.store import Store
from chatserver.transport.forwarding import HOP, Forwarder
from tests.support.raw import PATH, Polling, RawSocket
from tests.support.realtime import NamingDoor, Node, Truth, node, until
from tests.support.servers import TestValkey


@dataclass
class Member:
    node: Node
    registry: NodeRegistry
    forwarder: Forwarder


MakeMember = Callable[[str], Any]


@pytest.fixture
async def member(truth: Truth, valkey: TestValkey) -> AsyncIterator[MakeMember]:
    """Make a node that is on the list of nodes and forwards to the others."""
    url = f"redis://127.0.0.1:{valkey.port}/0"
    async with AsyncExitStack() as stack:

        async def make(name: str) -> Member:
            registry = NodeRegistry(
                Store(url, prefix="test-nodes"), key=b"k" * 32, node_id=name, url=None
            )
            forwarder = Forwarder(registry, "/socket.io/")

            def furnish(app: web.Application, _: Realtime, __: NamingDoor) -> None:
                app.middlewares.append(forwarder.middleware())

            made = await stack.enter_async_context(
                node(truth, url, name, leads=name == "a", furnish=furnish)
            )
            stack.push_async_callback(forwarder.close)
            stack.push_async_callback(registry.stop)
            registry._url = made.url
            await registry.start()
            return Member(made, registry, forwarder)

        yield make


def elsewhere(peer: Polling, at: Node) -> None:
    """Let a client's next requests go to another node."""
    peer.url = at.url + peer.url[peer.url.index("/socket.io/") :]


class TestForwarding:
    async def test_a_sid_names_its_node(self, member: MakeMember) -> None:
        a = await member("a")
        async with aiohttp.ClientSession() as http:
            opening = await Polling(http, a.node.url).open()
        assert owner_of(opening["sid"]) == "a"

    async def test_polls_and_posts_reach_their_session_by_any_node(
        self, member: MakeMember
    ) -> None:
        a, b = await member("a"), await member("b")
        async with aiohttp.ClientSession() as http:
            peer = Polling(http, a.node.url)
            await peer.open()
            elsewhere(peer, b.node)
            await peer.connect("ann")
            assert await peer.post('42/chat,7["echo",{"text":"' + "x" * 100_000 + '"}]') == 200
            status, packets = await peer.get()
            assert status == 200
            assert packets[0].startswith('43/chat,7[{"ok":true')
            assert await peer.post("4" + "x" * 300_000) == 413
        assert b.forwarder.counters.requests >= 5
        assert a.forwarder.counters.requests == 0

    async def test_an_upgrade_reaches_its_session_by_any_node(self, member: MakeMember) -> None:
        a, b = await member("a"), await member("b")
        async with aiohttp.ClientSession() as http:
            peer = Polling(http, a.node.url)
            opening = await peer.open()
            await peer.connect("ann")
            url = f"{b.node.url}{PATH}&transport=websocket&sid={opening['sid']}"
            async with http.ws_connect(url) as socket:
                raw = RawSocket(socket)
                await raw.send("2probe")
                assert await raw.receive() == "3probe"
                await raw.send("5")
                assert await raw.is_alive()
                assert b.forwarder.counters.upgrades == 1
                for session in a.node.realtime.sessions():
                    a.node.realtime.server.end(session, "x", "Over.", "now")
                assert (await raw.closing() or {})["code"] == "x"

    async def test_a_client_that_hangs_up_ends_its_session_at_once(
        self, member: MakeMember
    ) -> None:
        a, b = await member("a"), await member("b")
        async with aiohttp.ClientSession() as http:
            peer = Polling(http, a.node.url)
            opening = await peer.open()
            url = f"{b.node.url}{PATH}&transport=websocket&sid={opening['sid']}"
            async with http.ws_connect(url) as socket:
                await socket.send_str("2probe")
                await socket.receive()
                await socket.send_str("5")
            await until(lambda: not a.node.realtime.sessions(), within_s=3)

    async def test_nothing_is_handed_on_twice(self, member: MakeMember) -> None:
        a, b = await member("a"), await member("b")
        async with aiohttp.ClientSession() as http:
            peer = Polling(http, a.node.url)
            await peer.open()
            elsewhere(peer, b.node)
            async with http.get(peer.url, headers={HOP: "c"}) as response:
                assert response.status == 400
        assert b.forwarder.counters.hops == 1
        assert b.forwarder.counters.requests == 0

    async def test_a_session_of_a_dead_node_is_refused_so_that_its_client_starts_anew(
        self, member: MakeMember
    ) -> None:
        b = await member("b")
        b.registry._known["a"] = "http://127.0.0.1:9"
        async with aiohttp.ClientSession() as http:
            for owner in ("a", "never-was"):
                url = f"{b.node.url}{PATH}&transport=polling&sid={owner}.abcdefgh"
                async with http.get(url, headers={"Origin": "http://x"}) as response:
                    assert response.status == 400
                    assert (await response.json())["code"] == 1
                    assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert b.forwarder.counters.dead == 2


class TestRegistry:
    async def test_nodes_are_found_while_redis_is_away(
        self, member: MakeMember, valkey: TestValkey
    ) -> None:
        a, b = await member("a"), await member("b")
        await b.registry._turn()
        assert await b.registry.where("a") == a.node.url
        valkey.pause()
        try:
            await b.registry._turn()
            assert await b.registry.where("a") == a.node.url
        finally:
            valkey.resume()

    async def test_a_node_that_left_is_no_longer_there(self, member: MakeMember) -> None:
        a, b = await member("a"), await member("b")
        await b.registry._turn()
        await a.registry.stop()
        await b.registry._turn()
        assert await b.registry.where("a") is None

    async def test_an_entry_that_a_stranger_wrote_is_ignored(
        self, member: MakeMember, valkey: TestValkey
    ) -> None:
        b = await member("b")
        store = Store(f"redis://127.0.0.1:{valkey.port}/0", prefix="test-nodes")
        forged = "0" * 64 + " http://127.0.0.1:1"
        await store.ask(lambda redis: redis.set("{test-nodes:nodes}:evil", forged))
        await store.ask(lambda redis: redis.sadd("{test-nodes:nodes}", "evil"))
        await b.registry._turn()
        assert await b.registry.where("evil") is None
        await store.close()
