"""Receivers that misbehave (F22, E1 to E4): each hurts itself alone, and nothing is lost."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from chatserver.infra.addresses import Reach
from chatserver.infra.http_client import GuardedClient
from chatserver.kernel.principal import Principal
from tests.support.nodes import eventually
from tests.support.receiver import Post

TOTAL_S = 0.6
CONNECT_S = 0.3


@pytest.fixture
async def hasty(post: Post) -> AsyncIterator[Post]:
    """With times that a test can wait for: 0.6 s in all, 0.3 s to connect."""
    client = GuardedClient(Reach(private=True), total_s=TOTAL_S, connect_s=CONNECT_S, kept_s=5)
    post.hooks.sender._client = client
    yield post
    await client.close()


async def first_attempt(post: Post, master: Principal, url: str | None = None) -> dict[str, Any]:
    """Send one event to `/bad`, and one to a good endpoint beside it; how the bad one went."""
    more = {} if url is None else {"url": url}
    bad = await post.endpoint(master, "/bad", **more)
    good = await post.endpoint(master, "/good")
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id)
        await post.settled(good.id, 1)

        async def tried() -> Any:
            return await post.talk.rows(
                "select a.*, d.state from delivery_attempt a"
                " join delivery d on d.id = a.delivery_id where d.target_id = $1",
                bad.id,
            )

        (row, *_) = await eventually(tried, within_s=20, why="a try")
    assert row["state"] == "retry_wait"
    return dict(row)


async def test_hanging(hasty: Post, master: Principal) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    hasty.receiver.answers["/bad"] = hang
    row = await first_attempt(hasty, master)
    assert (row["error"], row["status"]) == ("timeout", None)
    assert TOTAL_S * 1000 <= row["latency_ms"] < 5000


async def test_dripping(hasty: Post, master: Principal) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=200)
        await answer.prepare(request)
        while True:
            await answer.write(b".")
            await asyncio.sleep(0.05)

    hasty.receiver.answers["/bad"] = drip
    row = await first_attempt(hasty, master)
    assert row["error"] == "timeout"


async def test_ten_gigabytes(hasty: Post, master: Principal) -> None:
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse(status=500, headers={"Content-Length": str(10 * 2**30)})
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65_536)
            written += 65_536

    hasty.receiver.answers["/bad"] = flood
    row = await first_attempt(hasty, master)
    # What was read suffices to know the status; the rest is not waited for.
    assert (row["error"], row["status"]) == ("status_500", 500)
    assert len(row["response"]) < 5_000
    assert written < 50_000_000


async def test_a_gzip_bomb_stays_packed(hasty: Post, master: Principal) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)

    async def packed(_: web.Request) -> web.StreamResponse:
        return web.Response(status=500, body=bomb, headers={"Content-Encoding": "gzip"})

    hasty.receiver.answers["/bad"] = packed
    row = await first_attempt(hasty, master)
    assert (row["status"], row["latency_ms"] < TOTAL_S * 1000) == (500, True)


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A port where connections are taken and nothing is ever said."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_tls_that_never_finishes(hasty: Post, master: Principal) -> None:
    async with silent() as port:
        row = await first_attempt(hasty, master, f"https://127.0.0.1:{port}/bad")
    assert row["error"] == "timeout"
    assert row["latency_ms"] < TOTAL_S * 1000


async def test_a_redirect_to_a_private_address_is_not_followed(
    hasty: Post, master: Principal
) -> None:
    hasty.receiver.answer("/bad", 301, Location="http://169.254.169.254/latest/meta-data")
    row = await first_attempt(hasty, master)
    assert (row["error"], row["status"]) == ("redirect", 301)
    assert len(hasty.receiver.at("/bad")) == 1


class Alternating(AbstractResolver):
    """A DNS that gives a public address first and this machine's ever after."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        address = "8.8.8.8" if self.asked == 1 else "127.0.0.1"
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        return


async def test_a_dns_that_alternates_reaches_nothing_private(post: Post, master: Principal) -> None:
    names = Alternating()
    async with GuardedClient(resolver=names) as strict:
        post.talk.container.outside = strict
        endpoint = await post.endpoint(master, url="https://rebind.example.com/hook")
        post.hooks.sender._client = strict
        room = await post.talk.room(await post.talk.user(master, "ann"))
        async with post.at_work():
            await post.talk.send(master, room.id)

            async def tried() -> Any:
                return await post.talk.rows(
                    "select error, peer from delivery_attempt where target_id = $1", endpoint.id
                )

            (row,) = await eventually(tried, why="a try")
    assert row == {"error": "address_refused", "peer": None}
    assert names.asked == 2
    assert post.receiver.got == []


async def test_nobody_there(hasty: Post, master: Principal) -> None:
    row = await first_attempt(hasty, master, "http://127.0.0.1:9/bad")
    assert row["error"] == "connect_failed"


async def test_a_connection_that_is_cut_in_the_answer(hasty: Post, master: Principal) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    hasty.receiver.answers["/bad"] = cut
    row = await first_attempt(hasty, master)
    assert row["error"] == "response_broken"


@pytest.mark.parametrize(
    ("status", "headers", "state", "reason"),
    [
        (410, {}, "failed", "gone"),
        (500, {"webhook_delivery": "disable"}, "failed", "disabled_by_receiver"),
        (422, {"webhook_delivery": "abort-message"}, "failed", "aborted_by_receiver"),
        (429, {"Retry_After": "120"}, "retry_wait", "status_429"),
        (404, {}, "retry_wait", "status_404"),
    ],
)
async def test_what_receivers_can_say(
    post: Post, master: Principal, status: int, headers: dict[str, str], state: str, reason: str
) -> None:
    endpoint = await post.endpoint(master)
    post.receiver.answer("/hook", status, text="because", **headers)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id)

        async def moved() -> bool:
            return (await post.states(endpoint.id))[state] == 1

        await eventually(moved, why=state)

        async def noted() -> bool:
            rows = await post.talk.rows(
                "select 1 from delivery_target where id = $1 and (failures > 0)", endpoint.id
            )
            return bool(rows) or reason == "aborted_by_receiver"

        await eventually(noted, why="noted")
    (delivery,) = await post.deliveries(master, endpoint.id)
    assert delivery.reason == reason
    assert delivery.attempts is not None
    assert delivery.attempts[0].response == "because"
    health = (await post.shown(master, endpoint.id)).health
    expected = {"gone": "disabled", "disabled_by_receiver": "disabled"}
    assert health.state == expected.get(reason, "active")
    if status == 429:
        # The endpoint rests, not this one alone.
        rows = await post.talk.rows(
            "select extract(epoch from open_until - clock_timestamp())::int as s"
            " from delivery_target where id = $1",
            endpoint.id,
        )
        assert 100 < rows[0]["s"] <= 120
