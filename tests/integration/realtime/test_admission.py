"""At most 64 handshakes in progress, 2 s in the queue, then 503: over both transports."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from socketio.exceptions import ConnectionError as NotConnectedError

from chatserver.realtime.admission import EARLIEST_MS, LATEST_MS, Admission
from tests.support.realtime import Person, Truth, node, until
from tests.support.servers import Servers


async def test_the_queue_is_told_503_over_both_transports(servers: Servers) -> None:
    admission = Admission(at_once=2, queue_s=0.3)
    async with node(Truth(), servers.valkey.url, admission=admission) as made:
        made.door.accepting_s = 3.0
        slow = [Person(f"slow {number}") for number in range(2)]
        connecting = [
            asyncio.ensure_future(person.client.connect(made.url, auth={"token": person.name},
                namespaces=["/chat"], transports=["websocket"], wait_timeout=10))
            for person in slow
        ]  # fmt: skip
        await until(lambda: admission.is_full)
        started = time.monotonic()
        async with aiohttp.ClientSession() as session:
            url = f"{made.url}/socket.io/?EIO=4&transport=polling"
            async with session.get(url) as answer:
                assert answer.status == 503
                assert 1 <= int(answer.headers["Retry-After"]) <= 30
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url.replace("polling", "websocket"))
            assert refused.value.status == 503
            assert refused.value.headers
            assert 1 <= int(refused.value.headers["Retry-After"]) <= 30
        assert 0.5 < time.monotonic() - started < 2
        await asyncio.gather(*connecting)
        # Places are free again: everybody comes in.
        made.door.accepting_s = 0.0
        others = [await Person(f"{n}").connect(made, "polling") for n in range(3)]
        for person in (*slow, *others):
            await person.leave()


async def test_whoever_opened_before_is_told_in_the_namespace(servers: Servers) -> None:
    admission = Admission(at_once=1, queue_s=0.3)
    async with node(Truth(), servers.valkey.url, admission=admission) as made:
        made.door.accepting_s = 1.5
        people = [Person(f"{number}") for number in range(2)]
        refusals: list[Any] = []

        async def connect(person: Person) -> None:
            person.client.on("connect_error", refusals.append, namespace="/chat")
            try:
                await person.client.connect(
                    made.url,
                    auth={"token": person.name},
                    namespaces=["/chat"],
                    transports=["websocket"],
                    wait_timeout=10,
                )
            except NotConnectedError:
                return

        await asyncio.gather(*(connect(person) for person in people))
        (refusal,) = refusals
        assert refusal["data"]["code"] == "unavailable"
        assert refusal["data"]["status"] == 503
        assert EARLIEST_MS <= refusal["data"]["retry_after_ms"] <= LATEST_MS
        for person in people:
            await person.leave()


async def test_silent_peers_hold_no_places(servers: Servers) -> None:
    admission = Admission(at_once=2, queue_s=0.3)
    async with (
        node(Truth(), servers.valkey.url, admission=admission) as made,
        aiohttp.ClientSession() as session,
    ):
        url = f"{made.url}/socket.io/?EIO=4&transport=websocket"
        silent = [await session.ws_connect(url) for _ in range(20)]
        person = await Person("ann").connect(made)
        await person.leave()
        for socket in silent:
            await socket.close()


async def test_a_refusal_is_delayed_and_spread(servers: Servers) -> None:
    async with node(Truth(), servers.valkey.url, refusal_s=0.4) as made:
        waits = []
        for _ in range(4):
            person = Person("")
            started = time.monotonic()
            with pytest.raises(NotConnectedError):
                await person.client.connect(
                    made.url, namespaces=["/chat"], transports=["websocket"], wait_timeout=10
                )
            waits.append(time.monotonic() - started)
            await person.leave()
        assert min(waits) >= 0.2
        assert max(waits) - min(waits) > 0.01
