"""Endpoints that are away: what gathers, who probes, and how it goes on."""

from collections import Counter

from aiohttp import web

from chatserver.kernel.principal import Principal
from chatserver.webhooks.endpoints.schemas import UpdateEndpoint
from tests.support.nodes import eventually
from tests.support.receiver import Post

HOUR = 3600.0


async def test_down_for_an_hour_then_nothing_is_missing_and_the_drain_is_limited(
    post: Post, master: Principal
) -> None:
    post.hooks.queue._drain_per_s = 20
    endpoint = await post.endpoint(master)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id, "works")
        await post.settled(endpoint.id, 1)
        post.receiver.answer("/hook", 500)
        for n in range(60):
            await post.talk.send(master, room.id, f"m{n}")

        async def is_paused() -> bool:
            await post.advance(10)
            return (await post.shown(master, endpoint.id)).health.state == "paused"

        await eventually(is_paused, within_s=20, why="paused")
        for _ in range(6):
            before = len(post.receiver.got)
            await post.advance(1100)

            async def probed(before: int = before) -> bool:
                # The failure of the last probe may be noted only now.
                await post.advance(60)
                return len(post.receiver.got) > before

            await eventually(probed, why="a probe")
        # One at a time probes: an hour of outage cost a handful of requests, and used up no tries.
        assert len(post.receiver.got) < 60
        tries = await post.talk.rows(
            "select max(attempts) as n from delivery where target_id = $1", endpoint.id
        )
        assert tries[0]["n"] < 13
        post.receiver.heal("/hook")
        failed_before = len(post.receiver.got)

        async def resumed() -> bool:
            await post.advance(60)
            return (await post.shown(master, endpoint.id)).health.state == "active"

        await eventually(resumed, why="resumed")
        await post.settled(endpoint.id, 61, within_s=30)
        drained = post.receiver.got[failed_before:]
    ids = Counter(got.id for got in drained)
    assert set(ids.values()) == {1}
    assert len(ids) == 60
    # The oldest first, but for the probes that found it well again; four are on their way at once.
    seqs = [got.seq for got in drained]
    rest = seqs[seqs.index(min(seqs)) :]
    assert len(rest) > 50, seqs
    assert all(abs(seq - place) <= 8 for seq, place in zip(rest, sorted(rest), strict=True)), seqs
    assert (await post.shown(master, endpoint.id)).health.state == "active"
    assert (await post.ledger(master)).balanced


async def test_the_drain_keeps_to_its_rate(post: Post, master: Principal) -> None:
    post.hooks.queue._drain_per_s = 10
    endpoint = await post.endpoint(master, concurrency=8)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    await post.talk.run(
        "update delivery_target set is_draining = true, is_proven = true where id = $1", endpoint.id
    )
    for n in range(30):
        await post.talk.send(master, room.id, f"m{n}")
    await post.dispatcher.dispatch_all()
    async with post.at_work():
        began = await post.talk.rows("select clock_timestamp() as t")
        await post.settled(endpoint.id, 30)
        ended = await post.talk.rows("select clock_timestamp() as t")
    # A second's worth at once, the others at ten a second.
    assert 1.5 < (ended[0]["t"] - began[0]["t"]).total_seconds() < 6


async def test_troubles_are_told_to_the_other_endpoints_and_not_to_itself(
    post: Post, master: Principal
) -> None:
    other = await post.endpoint(master, "/other", events=["endpoint.*"])
    endpoint = await post.endpoint(master, "/hook", events=["*"])
    post.receiver.answer("/hook", 500)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id, "m")

        async def told(count: int) -> bool:
            await post.advance(40)
            return len(post.receiver.at("/other")) >= count

        await eventually(lambda: told(1), why="paused is told")
        post.receiver.heal("/hook")
        await eventually(lambda: told(2), why="resumed is told")
        facts = [got.verify(other.secret) for got in post.receiver.at("/other")]
    assert [fact["type"] for fact in facts] == ["endpoint.paused", "endpoint.resumed"]
    assert {fact["data"]["endpoint_id"] for fact in facts} == {str(endpoint.id)}
    assert facts[0]["data"]["reason"] == "status_500"
    about_itself = [got for got in post.receiver.at("/hook") if "endpoint." in got.fact["type"]]
    assert about_itself == []


async def test_one_bad_event_does_not_keep_an_endpoint_paused(
    post: Post, master: Principal
) -> None:
    async def picky(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        return web.Response(status=500 if b"poison" in body else 200)

    endpoint = await post.endpoint(master)
    post.receiver.answers["/hook"] = picky
    room = await post.talk.room(await post.talk.user(master, "ann"))
    await post.talk.send(master, room.id, "poison")
    for n in range(3):
        await post.talk.send(master, room.id, f"m{n}")
    await post.dispatcher.dispatch_all()
    await post.talk.run(
        "update delivery_target set state = 'paused', failures = 5 where id = $1",
        endpoint.id,
    )
    async with post.at_work():

        async def others_arrived() -> bool:
            await post.advance(60)
            return (await post.states(endpoint.id))["delivered"] == 3

        await eventually(others_arrived, why="the others arrive")
    assert (await post.shown(master, endpoint.id)).health.state == "active"


async def test_flapping_is_paused_although_every_second_one_arrives(
    post: Post, master: Principal
) -> None:
    count = 0

    async def flap(_: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return web.Response(status=500 if count % 2 else 200)

    endpoint = await post.endpoint(master, concurrency=1)
    post.receiver.answers["/hook"] = flap
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        for n in range(30):
            await post.talk.send(master, room.id, f"m{n}")

        async def is_paused() -> bool:
            return (await post.shown(master, endpoint.id)).health.state == "paused"

        await eventually(is_paused, why="paused")
        post.receiver.heal("/hook")

        async def all_there() -> bool:
            await post.advance(600)
            return (await post.states(endpoint.id))["delivered"] == 30

        await eventually(all_there, why="everything arrives")


async def test_who_comes_back_by_hand_is_served_at_once(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master)
    post.receiver.answer("/hook", 410)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id, "lost")

        async def is_disabled() -> bool:
            return (await post.shown(master, endpoint.id)).health.state == "disabled"

        await eventually(is_disabled, why="disabled")
        post.receiver.heal("/hook")
        # No delivery is made for it, but the event is numbered all the same: it can be asked for.
        await post.talk.send(master, room.id, "meanwhile")
        await post.dispatcher.dispatch_all()
        async with post.hooks.open_endpoints() as endpoints:
            await endpoints.update(
                master, UpdateEndpoint.model_validate({"id": endpoint.id, "enabled": True})
            )
        await post.talk.send(master, room.id, "after")
        await post.settled(endpoint.id, 1)
    assert [got.fact["data"]["message"]["content"] for got in post.receiver.at("/hook")] == [
        "lost",
        "after",
    ]
    assert [got.seq for got in post.receiver.at("/hook")] == [1, 3]
