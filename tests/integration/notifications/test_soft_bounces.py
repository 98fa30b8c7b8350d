"""Addresses that take none of several mails are left in peace for some days, and no longer."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.notifications.consent.schemas import SuppressionCreate
from tests.support.mail_server import MailServer, mail_server
from tests.support.nodes import eventually
from tests.support.notifying import near, send, settled, smtp, working
from tests.support.talk import Talk
from tests.support.talking import master
from workers.notifications import NotificationLanes

__all__ = ["master", "near"]

FULL = "552 5.2.2 mailbox full"
BOB = "bob@example.net"


@pytest.fixture
async def talk(near: Talk) -> Talk:
    return near


@pytest.fixture
async def lanes(talk: Talk) -> AsyncIterator[NotificationLanes]:
    async with working(talk) as made:
        yield made


@pytest.fixture
async def server(
    talk: Talk, master: Principal, lanes: NotificationLanes
) -> AsyncIterator[MailServer]:
    async with mail_server() as made:
        await smtp(talk, master, made)
        yield made


async def lose(
    talk: Talk, master: Principal, lanes: NotificationLanes, *, last: bool = False
) -> str:
    """Send a mail and wait until all that follows from its end is done; `last`: on its last try."""
    [row] = await talk.rows("select clock_timestamp() + interval '1 hour' as at")
    sent = await send(talk, master, scheduled_at=row["at"].isoformat())
    await talk.run(
        "update delivery set next_at = clock_timestamp(), attempts = $2 where source_id = $1",
        sent.id,
        8 if last else 0,
    )
    state: str = (await settled(talk, master, sent.id))[0].state
    await eventually(lambda: not any(lane.held for lane in lanes.lanes), why="all is written down")
    return state


async def note(talk: Talk, master: Principal, delivery_id: UUID | None = None) -> bool:
    async with talk.container.notifications.open_consent() as consent:
        return await consent.soft_bounce(master.client_id, BOB, delivery_id or uuid7())


async def test_the_fifth_within_two_weeks_rests_the_address_for_one(
    talk: Talk, master: Principal, server: MailServer, lanes: NotificationLanes
) -> None:
    server.behaviour.recipient = FULL
    for _ in range(5):
        assert await lose(talk, master, lanes) == "bounced"
    refused = await send(talk, master)
    assert [(it.state, it.reason) for it in refused.deliveries] == [("suppressed", "soft_bounce")]
    [row] = await talk.rows(
        "select scope, extract(epoch from expires_at - clock_timestamp()) as left_s"
        " from suppression"
    )
    assert row["scope"] == "all"
    assert 7 * 86_400 - 60 < row["left_s"] <= 7 * 86_400
    server.behaviour.recipient = None
    # What is urgent is tried all the same: somebody may have tidied up.
    code = await send(talk, master, priority="critical")
    assert (await settled(talk, master, code.id))[0].state == "accepted"
    await talk.run("update suppression set expires_at = clock_timestamp()")
    assert await lose(talk, master, lanes) == "accepted"
    # The address itself is nowhere.
    assert BOB not in f"{await talk.rows('select * from soft_bounce')}"


async def test_what_waits_when_the_fifth_bounces_is_not_sent_either(
    talk: Talk, master: Principal, server: MailServer, lanes: NotificationLanes
) -> None:
    [row] = await talk.rows("select clock_timestamp() + interval '1 hour' as at")
    sent = await send(talk, master, scheduled_at=row["at"].isoformat())
    for n in range(5):
        assert await note(talk, master) is (n == 4)
    await talk.run("update delivery set next_at = clock_timestamp(), state = 'queued'")
    [done] = await settled(talk, master, sent.id)
    assert (done.state, done.reason, server.taken) == ("suppressed", "soft_bounce", [])


@pytest.mark.parametrize(
    ("refusal", "counts"),
    [
        ("452 4.2.2 over quota", 1),
        ("450 mailbox busy", 1),
        # Of the sender, or of everybody: not this address's doing.
        ("451 4.7.1 greylisted", 0),
        ("550 5.7.1 you are not welcome", 0),
        ("550 5.1.1 no such user", 0),
    ],
)
async def test_only_what_is_the_address_s_own_and_does_not_last_counts(
    talk: Talk,
    master: Principal,
    server: MailServer,
    lanes: NotificationLanes,
    refusal: str,
    counts: int,
) -> None:
    server.behaviour.recipient = refusal
    await lose(talk, master, lanes, last=True)
    assert len(await talk.rows("select 1 from soft_bounce")) == counts


async def test_a_try_that_fails_does_not_count_while_others_follow(
    talk: Talk, master: Principal, server: MailServer, lanes: NotificationLanes
) -> None:
    server.behaviour.recipient = "452 4.2.2 over quota"
    for n in range(6):
        sent = await send(talk, master, recipients=[{"email": f"full{n}@example.net"}])
        assert sent.deliveries[0].state == "queued"
    server.behaviour.recipient = None
    assert await lose(talk, master, lanes) == "accepted"
    assert await talk.rows("select 1 from soft_bounce") == []
    # And full mailboxes don't make a provider unwell.
    [target] = await talk.rows("select state, failures from delivery_target")
    assert (target["state"], target["failures"]) == ("active", 0)


async def test_a_mail_counts_once_and_after_two_weeks_not_at_all(
    talk: Talk, master: Principal
) -> None:
    same = uuid7()
    for _ in range(6):
        assert not await note(talk, master, same)
    for _ in range(3):
        await note(talk, master)
    await talk.run("update soft_bounce set at = at - interval '15 days'")
    for n in range(5):
        assert await note(talk, master) is (n == 4)
    other = await talk.client("other")
    assert not await note(talk, other)


@pytest.mark.parametrize(
    ("first", "then", "stays"),
    [
        ("hard_bounce", "soft_bounce", "hard_bounce"),
        ("manual", "soft_bounce", "manual"),
        ("hard_bounce", "complaint", "hard_bounce"),
        ("complaint", "hard_bounce", "hard_bounce"),
        ("soft_bounce", "complaint", "complaint"),
    ],
)
async def test_what_says_more_stays(
    talk: Talk, master: Principal, first: str, then: str, stays: str
) -> None:
    for reason in (first, then):
        async with talk.container.notifications.open_consent() as consent:
            await consent.suppress_found(master.client_id, BOB, reason=reason)
    [row] = await talk.rows("select reason, expires_at from suppression")
    assert (row["reason"], row["expires_at"]) == (stays, None)
    # Whoever administers it has the last word.
    async with talk.container.notifications.open_consent() as consent:
        await consent.suppress(
            master, master.client_id, SuppressionCreate(channel="email", address=BOB)
        )
    [row] = await talk.rows("select reason from suppression")
    assert row["reason"] == "manual"
