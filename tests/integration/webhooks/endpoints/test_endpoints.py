"""What an application can do with its endpoints."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from standardwebhooks import WebhookVerificationError

from chatserver.infra.http_client import GuardedClient
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.webhooks.endpoints.errors import (
    EndpointLimitError,
    EndpointNotFoundError,
    EventsTruncatedError,
    SecretLimitError,
    WebhookEventNotFoundError,
)
from chatserver.webhooks.endpoints.schemas import (
    EndpointRef,
    ListEndpointEvents,
    ReplayEvents,
    RotateSecret,
    UpdateEndpoint,
)
from chatserver.webhooks.endpoints.service import EndpointLimits
from tests.support.nodes import eventually
from tests.support.receiver import Post
from workers.webhooks import WebhookJobs


async def followed(post: Post, who: Principal) -> list[str]:
    rows = await post.talk.rows("select followed from client where id = $1", who.client_id)
    found: list[str] = rows[0]["followed"]
    return found


async def update(post: Post, who: Principal, endpoint_id: object, **more: Any) -> None:
    async with post.hooks.open_endpoints() as endpoints:
        await endpoints.update(who, UpdateEndpoint.model_validate({"id": endpoint_id, **more}))


async def delete(post: Post, who: Principal, endpoint_id: Any) -> None:
    async with post.hooks.open_endpoints() as endpoints:
        await endpoints.delete(who, EndpointRef(id=endpoint_id))


async def events(post: Post, who: Principal, endpoint_id: Any, after: int, limit: int = 100) -> Any:
    command = ListEndpointEvents(id=endpoint_id, after_seq=after, limit=limit)
    async with post.hooks.open_replays() as replays:
        return await replays.wanted(
            who.client_id, command.id, after=command.after_seq, limit=command.limit, scan=50
        )


async def replay(post: Post, who: Principal, endpoint_id: Any, **more: Any) -> Any:
    async with post.hooks.open_replays() as replays:
        return await replays.replay(who, ReplayEvents.model_validate({"id": endpoint_id, **more}))


async def run_replays(post: Post) -> None:
    """Do what the job does."""
    jobs = WebhookJobs(post.hooks.open_replays, post.talk.container.database)
    rows = await post.talk.rows("select * from job where kind = 'webhooks.replay'")
    for row in rows:
        await jobs.replay_of(row["client_id"], orjson.loads(row["payload"]))
    await post.talk.run("delete from job where kind = 'webhooks.replay'")


async def test_what_a_client_follows_is_kept_in_step(post: Post, master: Principal) -> None:
    first = await post.endpoint(master, events=["message.created", "room.deleted"])
    second = await post.endpoint(master, events=["pin.*"])
    assert await followed(post, master) == ["message.created", "pin.changed", "room.deleted"]
    await update(post, master, first.id, events=["room.created"])
    assert await followed(post, master) == ["pin.changed", "room.created"]
    await delete(post, master, second.id)
    assert await followed(post, master) == ["room.created"]
    await delete(post, master, first.id)
    assert await followed(post, master) == []


async def test_nothing_is_written_for_facts_that_nobody_follows(
    post: Post, master: Principal
) -> None:
    await post.endpoint(master, events=["room.deleted"])
    room = await post.talk.room(await post.talk.user(master, "ann"))
    await post.talk.send(master, room.id)
    rows = await post.talk.rows(
        "select type from outbox where client_id = $1 union all"
        " select type from webhook_event where client_id = $1",
        master.client_id,
    )
    assert rows == []


async def test_filters_are_seen_to_when_it_happens(post: Post, master: Principal) -> None:
    ann, bob = await post.talk.users(master, "ann", "bob")
    group, direct = await post.talk.room(ann), await post.talk.room(ann, bob, kind="direct")
    await post.endpoint(master, "/group", room_types=["group"])
    await post.endpoint(master, "/one", room_ids=[str(direct.id)])
    await post.endpoint(master, "/bots", bot_ids=[str(uuid7())])
    await post.endpoint(master, "/rooms", events=["room.*", "member.joined"])
    async with post.at_work():
        await post.talk.send(ann, group.id, "to the group")
        await post.talk.send(ann, direct.id, "to bob")
        await post.talk.invite(ann, group.id, bob)
        await post.receiver.until("/group", 1)
        await post.receiver.until("/one", 1)
        (joined,) = await post.receiver.until("/rooms", 1)
    texts = {
        path: [got.fact["data"]["message"]["content"] for got in post.receiver.at(path)]
        for path in ("/group", "/one", "/bots")
    }
    assert texts == {"/group": ["to the group"], "/one": ["to bob"], "/bots": []}
    assert joined.fact["type"] == "member.joined"
    assert joined.fact["data"]["user_id"] == "bob"


async def test_numbers_have_no_gaps_and_each_fact_is_one_event(
    post: Post, master: Principal
) -> None:
    endpoint = await post.endpoint(master, events=["*"])
    other = await post.endpoint(master, "/other")
    ann = await post.talk.user(master, "ann")
    room = await post.talk.room(ann)
    async with post.at_work():
        for n in range(20):
            await post.talk.send(ann, room.id, f"m{n}")
        await post.settled(endpoint.id, 21)
        await post.settled(other.id, 20)
    rows = await post.talk.rows(
        "select seq, id from webhook_event where client_id = $1 order by seq", master.client_id
    )
    assert [row["seq"] for row in rows] == list(range(1, 22))
    assert len({row["id"] for row in rows}) == 21
    both = {got.id: got.seq for got in post.receiver.at("/hook")}
    assert {got.id: got.seq for got in post.receiver.at("/other")}.items() <= both.items()
    log = await post.talk.log(room.id)
    assert set(both) == {str(row["id"]) for row in log}


async def test_an_edited_or_deleted_message_is_sent_as_it_is_by_now(
    post: Post, master: Principal
) -> None:
    await post.endpoint(master)
    ann = await post.talk.user(master, "ann")
    room = await post.talk.room(ann)
    sent = await post.talk.send(ann, room.id, "secret")
    await post.dispatcher.dispatch_all()
    # As a deletion leaves it.
    await post.talk.run(
        "update message set content = '', deleted_at = clock_timestamp() where id = $1",
        sent.message.id,
    )
    async with post.at_work():
        (got,) = await post.receiver.until("/hook", 1)
    assert got.fact["superseded"] is True
    assert b"secret" not in got.body
    assert got.fact["data"]["message"]["deleted_at"] is not None


async def test_what_the_log_no_longer_holds_is_sent_without_what_it_said(
    post: Post, master: Principal
) -> None:
    await post.endpoint(master)
    ann = await post.talk.user(master, "ann")
    room = await post.talk.room(ann)
    await post.talk.send(ann, room.id, "old")
    await post.dispatcher.dispatch_all()
    await post.talk.run("delete from message where room_id = $1", room.id)
    await post.talk.run("delete from room_event where room_id = $1", room.id)
    async with post.at_work():
        (got,) = await post.receiver.until("/hook", 1)
    assert (got.fact["data"], got.fact["erased"]) == ({}, True)
    assert got.fact["room_id"] == str(room.id)


async def test_secrets_overlap_and_then_the_old_one_ends(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id, "old")
        (old,) = await post.receiver.until("/hook", 1)
        old.verify(endpoint.secret)
        async with post.hooks.open_endpoints() as endpoints:
            rotated = await endpoints.rotate(master, RotateSecret(id=endpoint.id, overlap_s=600))
        assert rotated.secret != endpoint.secret
        assert rotated.previous_expires_at is not None
        # From the very next request on, whatever the sender remembers.
        await post.talk.send(master, room.id, "both")
        _, both = await post.receiver.until("/hook", 2)
        both.verify(endpoint.secret)
        both.verify(rotated.secret)
        await post.advance(601)
        await post.talk.send(master, room.id, "new")
        _, _, new = await post.receiver.until("/hook", 3)
    new.verify(rotated.secret)
    with pytest.raises(WebhookVerificationError):
        new.verify(endpoint.secret)


async def test_there_are_at_most_ten_live_secrets(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master)
    for _ in range(9):
        async with post.hooks.open_endpoints() as endpoints:
            await endpoints.rotate(master, RotateSecret(id=endpoint.id))
    with pytest.raises(SecretLimitError):
        async with post.hooks.open_endpoints() as endpoints:
            await endpoints.rotate(master, RotateSecret(id=endpoint.id))
    async with post.hooks.open_endpoints() as endpoints:
        await endpoints.rotate(master, RotateSecret(id=endpoint.id, overlap_s=0))


async def test_a_secret_is_sealed_and_in_no_answer_but_the_first(
    post: Post, master: Principal
) -> None:
    endpoint = await post.endpoint(master)
    (row,) = await post.talk.rows(
        "select sealed from webhook_secret where endpoint_id = $1", endpoint.id
    )
    assert endpoint.secret.removeprefix("whsec_").encode() not in row["sealed"]
    assert "secret" not in (await post.shown(master, endpoint.id)).model_dump()
    assert endpoint.secret not in repr(endpoint)


async def test_a_test_event_goes_to_this_endpoint_alone(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master, events=["room.deleted"])
    await post.endpoint(master, "/other", events=["*"])
    async with post.at_work():
        async with post.hooks.open_replays() as replays:
            tested = await replays.test(master, EndpointRef(id=endpoint.id))
        (got,) = await post.receiver.until("/hook", 1)
        await post.settled(endpoint.id, 1)
    assert got.verify(endpoint.secret)["type"] == "endpoint.test"
    assert (got.id, got.seq) == (str(tested.event_id), tested.event_seq)
    assert post.receiver.at("/other") == []
    delivery = await post.delivery(master, tested.delivery_id)
    assert delivery.state == "delivered"
    said = await post.explained(master, tested.delivery_id)
    assert (said.sentence, said.fault) == ("It was delivered after 1 try.", None)
    assert said.timeline[0].what == "promised"


async def test_forwarding_is_once_for_each_event(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master, events=["room.deleted"])
    event_id, made = uuid7(), set()
    for _ in range(2):
        async with post.hooks.open_replays() as replays:
            made.add(
                await replays.forward(
                    client_id=master.client_id,
                    endpoint_id=endpoint.id,
                    event_id=event_id,
                    type="order.paid",
                    data={"order": 7},
                    hops=2,
                )
            )
    assert len(made) == 1
    async with post.at_work():
        (got,) = await post.receiver.until("/hook", 1)
    assert (got.fact["type"], got.fact["data"]) == ("order.paid", {"order": 7})
    assert got.headers["webhook-origin"] == "chatserver;hops=2"


async def test_polling_gives_the_same_facts_in_the_same_order(
    post: Post, master: Principal
) -> None:
    endpoint = await post.endpoint(master, room_types=["group"])
    # So that events exist that this endpoint does not want.
    await post.endpoint(master, "/all", events=["*"])
    ann, bob = await post.talk.users(master, "ann", "bob")
    group, direct = await post.talk.room(ann), await post.talk.room(ann, bob, kind="direct")
    for n in range(4):
        await post.talk.send(ann, group.id, f"g{n}")
        await post.talk.send(ann, direct.id, f"d{n}")
    await post.dispatcher.dispatch_all()
    seen, after, complete = [], 0, False
    while not complete:
        found, after, complete = await events(post, master, endpoint.id, after, limit=3)
        facts = await post.hooks.reader.read([event.model_dump() for event in found])
        seen += [fact["data"]["message"]["content"] for fact in facts]
    assert seen == ["g0", "g1", "g2", "g3"]
    assert (await events(post, master, endpoint.id, after))[0] == []
    await post.talk.run(
        "delete from webhook_event where client_id = $1 and seq <= 5", master.client_id
    )
    with pytest.raises(EventsTruncatedError) as gone:
        await events(post, master, endpoint.id, 2)
    assert gone.value.details["min_seq"] == 6


async def test_replays_of_one_of_all_since_and_of_what_is_missing(
    post: Post, master: Principal
) -> None:
    endpoint = await post.endpoint(master)
    ann = await post.talk.user(master, "ann")
    room = await post.talk.room(ann)
    async with post.at_work():
        for n in range(3):
            await post.talk.send(ann, room.id, f"m{n}")
        await post.settled(endpoint.id, 3)
        (first, *_) = await post.deliveries(master, endpoint.id)
        replayed = await replay(post, master, endpoint.id, event_id=str(first.event_id))
        assert replayed.delivery_id == first.id
        again = (await post.receiver.until("/hook", 4))[3]
        assert (again.id, again.headers["webhook-attempt"]) == (str(first.event_id), "1")

        await post.settled(endpoint.id, 3)
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        await replay(post, master, endpoint.id, since=hour_ago)
        await run_replays(post)
        await post.receiver.until("/hook", 7)
        await post.settled(endpoint.id, 3)

        # One was given up, one was never made.
        rows = await post.deliveries(master, endpoint.id)
        await post.talk.run("update delivery set state = 'failed' where id = $1", rows[0].id)
        await post.talk.run("delete from delivery where id = $1", rows[1].id)
        await post.talk.run("delete from delivery_attempt where delivery_id = $1", rows[1].id)
        await replay(post, master, endpoint.id, missing=True)
        await run_replays(post)
        got = await post.receiver.until("/hook", 9)
        await post.settled(endpoint.id, 3)
    assert {each.id for each in got[7:]} == {str(rows[0].event_id), str(rows[1].event_id)}
    assert len(post.receiver.got) == 9
    shown = await post.delivery(master, rows[2].id)
    assert (shown.generation, shown.replayed_by) == (2, "master:None")
    with pytest.raises(WebhookEventNotFoundError):
        await replay(post, master, endpoint.id, event_id=str(uuid7()))


async def test_deleting_an_endpoint_cancels_what_waits(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    await post.talk.send(master, room.id)
    await post.dispatcher.dispatch_all()
    await delete(post, master, endpoint.id)
    await post.lane.sweep()
    assert await post.states(endpoint.id) == {"cancelled": 1}
    assert (await post.ledger(master)).balanced
    with pytest.raises(EndpointNotFoundError):
        await post.shown(master, endpoint.id)
    async with post.at_work():
        await post.talk.send(master, room.id)

        async def dispatched() -> bool:
            rows = await post.talk.rows(
                "select 1 from outbox where client_id = $1", master.client_id
            )
            return not rows

        await eventually(dispatched)
    assert post.receiver.got == []


async def test_a_client_has_so_many_endpoints_and_fewer_of_one_host(
    post: Post, master: Principal
) -> None:
    post.hooks._limits = EndpointLimits(per_client=3, per_host=2, concurrency=4)
    for path in ("/1", "/2"):
        await post.endpoint(master, path)
    with pytest.raises(EndpointLimitError, match="host"):
        await post.endpoint(master, "/3")
    elsewhere = "http://127.0.0.1:9/hook"
    other = await post.endpoint(master, url=elsewhere)
    with pytest.raises(EndpointLimitError, match="3 endpoints"):
        await post.endpoint(master, url=elsewhere)
    with pytest.raises(EndpointLimitError):
        await update(post, master, other.id, url=post.receiver.url + "/4")


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "https://127.0.0.1/", "https://2130706433/", "https://[::1]/"),
        *("https://169.254.169.254/", "https://user:pw@8.8.8.8/", "https://8.8.8.8:6379/"),
        *("ftp://8.8.8.8/", "https://localhost/", "https://10.0.0.1.", "nonsense", "https://"),
        *("https://[64:ff9b::7f00:1]/", "https://8.8.8.8/\r\nX: y", "https://0x7f.1/"),
    ],
)
async def test_addresses_of_the_inside_are_refused_at_once(
    post: Post, master: Principal, url: str
) -> None:
    async with GuardedClient() as strict:
        post.talk.container.outside = strict
        with pytest.raises(PayloadInvalidError) as refused:
            await post.endpoint(master, url=url)
        assert refused.value.issues[0]["field"] == "url"
        post.talk.container.outside = GuardedClient()


async def test_a_replay_whose_job_runs_twice_sends_once(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id)
        await post.settled(endpoint.id, 1)
        await replay(post, master, endpoint.id, after_seq=0)
        rows = await post.talk.rows("select payload from job where kind = 'webhooks.replay'")
        jobs = WebhookJobs(post.hooks.open_replays, post.talk.container.database)
        for count in (2, 2):
            await jobs.replay_of(master.client_id, orjson.loads(rows[-1]["payload"]))
            await post.receiver.until("/hook", count)
            await post.settled(endpoint.id, 1)
    await post.talk.run("delete from job where kind = 'webhooks.replay'")
    assert len(post.receiver.got) == 2


async def test_an_endpoint_that_moves_begins_anew(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master, "/old")
    post.receiver.answer("/old", 410)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id)

        async def is_disabled() -> bool:
            return (await post.shown(master, endpoint.id)).health.state == "disabled"

        await eventually(is_disabled, why="disabled")
        await post.talk.run(
            "update delivery_target set is_proven = true where id = $1", endpoint.id
        )
        await update(post, master, endpoint.id, url=post.receiver.url + "/new")
        rows = await post.talk.rows(
            "select state, is_proven from delivery_target where id = $1", endpoint.id
        )
        assert rows == [{"state": "active", "is_proven": False}]
        await post.talk.send(master, room.id)
        await post.receiver.until("/new", 1)
