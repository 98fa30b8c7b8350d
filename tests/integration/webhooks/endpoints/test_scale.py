"""Many slow endpoints at once, and the others beside them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

import pytest
from aiohttp import web

from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from tests.support.nodes import eventually
from tests.support.receiver import Post, Receiver, clear_away
from tests.support.servers import Database
from tests.support.talk import Talk

pytestmark = pytest.mark.soak

SLOW = 1000


@pytest.fixture
async def wide(posts: Database) -> AsyncIterator[Post]:
    """A process that may have very many connections to one host."""
    talk = Talk(
        posts,
        allow_private_addresses=True,
        webhooks={"connections_per_host": 0, "endpoints_per_host": 5000},
    )
    await talk.start()
    await clear_away(talk)
    async with Receiver() as receiver:
        yield Post(talk, receiver)
    await talk.stop()


async def copies(post: Post, who: Principal, path: str, count: int) -> None:
    """So many endpoints like the first, made in the database: one by one takes long."""
    first = await post.endpoint(who, f"{path}/0")
    ids = [uuid7() for _ in range(count - 1)]
    await post.talk.run(
        "insert into delivery_target (id, client_id, channel, state, concurrency, is_proven,"
        " failures, opened, is_draining) select i, client_id, channel, state, concurrency, true,"
        " 0, 0, false from delivery_target, unnest($2::uuid[]) i where id = $1",
        first.id,
        ids,
    )
    await post.talk.run(
        "insert into webhook_endpoint (id, client_id, url, events) select i, client_id,"
        " replace(url, '/0', '/' || n), events from webhook_endpoint,"
        " unnest($2::uuid[]) with ordinality as t(i, n) where id = $1",
        first.id,
        ids,
    )
    await post.talk.run(
        "insert into webhook_secret (id, client_id, endpoint_id, sealed)"
        " select i, client_id, i, sealed from webhook_secret, unnest($2::uuid[]) i"
        " where endpoint_id = $1",
        first.id,
        ids,
    )
    # A sealed secret opens only in its own place: all of these sign with the first one's key.
    real = post.hooks.sender._keys_of
    keys = await real({first.id: frozenset()})

    async def the_same(secrets: Mapping[UUID, frozenset[UUID]]) -> dict[UUID, tuple[bytes, ...]]:
        known = {each: of for each, of in secrets.items() if each not in ids}
        return {**await real(known), **dict.fromkeys(secrets.keys() & set(ids), keys[first.id])}

    post.hooks.sender._keys_of = the_same  # type: ignore[method-assign]


async def test_one_process_holds_a_thousand_slow_endpoints_without_a_thread_each(
    wide: Post,
) -> None:
    who = await wide.talk.client(f"wide-{uuid7().hex[-8:]}")
    # Half of the places is what one client gets: the other half is another's.
    other = await wide.talk.client(f"wide-{uuid7().hex[-8:]}")
    held, go_on = 0, asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        nonlocal held
        held += 1
        await go_on.wait()
        return web.Response()

    for client, name in ((who, "a"), (other, "b")):
        await copies(wide, client, f"/{name}", SLOW // 2)
        for n in range(SLOW // 2):
            wide.receiver.answers[f"/{name}/{n}"] = slow
        room = await wide.talk.room(await wide.talk.user(client, "ann"))
        await wide.talk.send(client, room.id)
    threads = threading.active_count()
    async with wide.at_work():
        await eventually(lambda: held == SLOW, within_s=30, why=f"all are held, not {held}")
        assert wide.lane.running == SLOW
        assert threading.active_count() <= threads + 10
        go_on.set()

        async def done() -> bool:
            return wide.lane.held == 0

        await eventually(done, why="all arrive")


async def test_a_tenth_that_hangs_delays_nobody_else(wide: Post) -> None:
    who = await wide.talk.client(f"wide-{uuid7().hex[-8:]}")
    await copies(wide, who, "/x", 30)
    hanging = {f"/x/{n}" for n in range(3)}
    go_on = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return web.Response()

    for path in hanging:
        wide.receiver.answers[path] = hang
    room = await wide.talk.room(await wide.talk.user(who, "ann"))
    async with wide.at_work():
        for n in range(25):
            await wide.talk.send(who, room.id, f"m{n}")
        for n in range(3, 30):
            await wide.receiver.until(f"/x/{n}", 25)
        # All of the others have everything, while those that hang have what they may have at once.
        assert all(0 < len(wide.receiver.at(path)) <= 4 for path in hanging)
        assert all(wide.receiver.most[path] <= 4 for path in hanging)
        go_on.set()
