"""What is kept, for how long, and what an erasure leaves of it."""

from datetime import timedelta
from uuid import UUID

from chatserver.kernel.principal import Principal
from chatserver.privacy.outbound import scrub_told
from tests.support.receiver import Post
from workers.webhooks import WebhookJobs

# As long as rows may be needed by anything, and a day.
AGE = timedelta(days=37)


def older(name: UUID) -> UUID:
    """The same id, made earlier: ids hold their time."""
    return UUID(int=name.int - (int(AGE.total_seconds() * 1000) << 80))


async def age(post: Post, who: Principal) -> None:
    """Make everything of a client 37 days older."""
    for table, column in (
        ("webhook_event", "created_at"),
        ("delivery", "settled_at"),
        ("delivery_attempt", "started_at"),
    ):
        await post.talk.run(
            f"update {table} set {column} = {column} - $2::interval where client_id = $1",
            who.client_id,
            AGE,
        )
    for row in await post.talk.rows("select id from delivery where client_id = $1", who.client_id):
        await post.talk.run(
            "update delivery set id = $2 where id = $1", row["id"], older(UUID(int=row["id"].int))
        )
    await post.talk.run(
        "update delivery_day set day = day - 37 where client_id = $1", who.client_id
    )


async def count(post: Post, table: str, who: Principal) -> int:
    rows = await post.talk.rows(
        f"select count(*) as n from {table} where client_id = $1", who.client_id
    )
    found: int = rows[0]["n"]
    return found


async def test_what_is_old_goes_and_what_still_waits_stays(post: Post, master: Principal) -> None:
    endpoint = await post.endpoint(master)
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        for n in range(3):
            await post.talk.send(master, room.id, f"m{n}")
        await post.settled(endpoint.id, 3)
        await age(post, master)
        await post.talk.send(master, room.id, "new")
        await post.settled(endpoint.id, 4)
    jobs = WebhookJobs(post.hooks.open_replays, post.talk.container.database)
    await jobs.trim_all()
    assert [
        await count(post, table, master)
        for table in ("webhook_event", "delivery", "delivery_attempt", "delivery_day")
    ] == [1, 1, 1, 1]
    assert (await post.ledger(master)).balanced


async def test_nothing_of_an_erased_person_is_left_in_events_and_answers(
    post: Post, master: Principal
) -> None:
    await post.endpoint(master, events=["*"])
    post.receiver.answer("/hook", 200, text="thank you, canary-ann")
    ann, bob = await post.talk.users(master, "canary-ann", "bob")
    room = await post.talk.room(bob)
    async with post.at_work():
        await post.talk.invite(bob, room.id, ann)
        await post.talk.send(ann, room.id, "hers")
        await post.talk.send(bob, room.id, "his")
        await post.receiver.until("/hook", 4)
        endpoint_id = (
            await post.talk.rows(
                "select id from webhook_endpoint where client_id = $1", master.client_id
            )
        )[0]["id"]
        await post.settled(endpoint_id, 4)
    open_work = post.talk.container.open(lambda work: work)
    after: int | None = 0
    while after is not None:
        async with open_work() as work:
            after, _ = await scrub_told(work.session, master.client_id, "canary-ann", after)
    rows = await post.talk.rows(
        "select row_to_json(e)::text as t from webhook_event e where client_id = $1",
        master.client_id,
    )
    assert len(rows) == 4
    assert all("canary-ann" not in row["t"] for row in rows)
    kept = await post.talk.rows(
        "select e.type, a.response is not null as has_answer from delivery_attempt a"
        " join delivery d on d.id = a.delivery_id"
        " join webhook_event e on e.client_id = d.client_id and e.seq = d.source_seq"
        " where d.client_id = $1 order by e.seq",
        master.client_id,
    )
    # The room's making and his own message say nothing of her; her coming and hers did.
    assert [(row["type"], row["has_answer"]) for row in kept] == [
        ("room.created", True),
        ("member.joined", False),
        ("message.created", False),
        ("message.created", True),
    ]
