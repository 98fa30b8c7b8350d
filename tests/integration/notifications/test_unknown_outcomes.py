"""Mails that may have arrived: Mailgun is asked before anything is sent again, or given up."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatserver.deliveries.schemas import DeliveryRef
from chatserver.kernel.principal import Principal
from chatserver.notifications.consent.schemas import SuppressionCreate
from tests.support.mailgun_server import HARD, MailgunServer, mailgun_server
from tests.support.nodes import eventually
from tests.support.notifying import hasten, mailgun, near, send, settled, waiting, working
from tests.support.talk import Talk
from tests.support.talking import master

__all__ = ["master", "near"]


@pytest.fixture
async def talk(near: Talk) -> Talk:
    return near


@pytest.fixture
async def server(talk: Talk, master: Principal) -> AsyncIterator[MailgunServer]:
    """A provider that takes a mail and goes away without a word."""
    async with mailgun_server() as made:
        await mailgun(talk, master, made)
        made.fault = "drop"
        made.asked.clear()
        yield made


@pytest.mark.parametrize("priority", ["transactional", "bulk"])
@pytest.mark.parametrize(
    ("kind", "state"), [("accepted", "accepted"), ("delivered", "delivered"), ("failed", "bounced")]
)
async def test_what_it_has_is_not_sent_again(
    talk: Talk, master: Principal, server: MailgunServer, priority: str, kind: str, state: str
) -> None:
    async with working(talk):
        sent = await send(talk, master, priority=priority)
        waits = await waiting(talk, master, sent.id)
        assert waits.reason == "unknown_outcome"
        more: dict[str, Any] = HARD if kind == "failed" else {}
        server.happened(kind, **more)
        await hasten(talk)
        [done] = await settled(talk, master, sent.id)
    assert (done.state, done.tries, len(server.taken)) == (state, 2, 1)
    assert server.asked[0]["message-id"] == f"{done.id}@example.org"
    reasons = [row["reason"] for row in await talk.rows("select reason from suppression")]
    assert reasons == (["hard_bounce"] if kind == "failed" else [])


@pytest.mark.parametrize(
    ("priority", "state", "taken"), [("transactional", "accepted", 2), ("bulk", "failed", 1)]
)
async def test_what_it_does_not_know_is_sent_once_more_unless_it_is_an_offer(
    talk: Talk, master: Principal, server: MailgunServer, priority: str, state: str, taken: int
) -> None:
    async with working(talk):
        sent = await send(talk, master, priority=priority)
        await waiting(talk, master, sent.id)
        server.fault = None
        await hasten(talk)
        [done] = await settled(talk, master, sent.id)
    assert (done.state, len(server.taken), len(server.asked)) == (state, taken, 1)
    assert len({fields["message"].partition(b"Message-ID")[2][:80] for fields in server.taken}) == 1


async def test_as_long_as_it_can_not_be_asked_nothing_is_sent_again(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    async with working(talk):
        sent = await send(talk, master)
        await waiting(talk, master, sent.id)
        server.fault, server.events_status = None, 500
        for times in (1, 2):
            await hasten(talk)
            await eventually(
                lambda times=times: len(server.asked) == times,  # type: ignore[misc]
                why="it was asked",
            )
            waits = await waiting(talk, master, sent.id)
            assert waits.reason == "unknown_outcome"
        server.events_status = 200
        server.happened("delivered")
        await hasten(talk)
        [done] = await settled(talk, master, sent.id)
    assert (done.state, len(server.taken)) == ("delivered", 1)
    [row] = await talk.rows("select attempts from delivery")
    # Asking in vain uses up no try.
    assert row["attempts"] == 2


async def test_a_second_one_of_the_same_mail_is_the_last(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    async with working(talk):
        sent = await send(talk, master)
        await waiting(talk, master, sent.id)
        await hasten(talk)
        [done] = await settled(talk, master, sent.id)
    assert (done.state, done.reason, len(server.taken)) == ("failed", "unknown_outcome", 2)


async def test_an_earlier_refusal_takes_nothing_of_its_repeat(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    async with working(talk):
        server.answer = (500, {"message": "not now"})
        sent = await send(talk, master)
        await waiting(talk, master, sent.id)
        server.answer = None
        await hasten(talk)
        await eventually(lambda: server.taken, why="it was taken")
        assert server.asked == []  # what was refused has not arrived: there is nothing to ask
        server.fault = None
        await eventually(lambda: waiting(talk, master, sent.id), why="it waits")
        await hasten(talk)
        [done] = await settled(talk, master, sent.id)
    assert (done.state, len(server.taken), len(server.asked)) == ("accepted", 2, 1)


async def test_what_became_of_the_first_tells_nothing_of_its_replay(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    server.fault = None
    async with working(talk):
        sent = await send(talk, master)
        [done] = await settled(talk, master, sent.id)
        # An hour ago, as far as Mailgun knows.
        server.happened("delivered", age_s=3600)
        server.fault = "drop"
        async with talk.container.webhooks.open_deliveries() as opened:
            await opened.replay(master, DeliveryRef(id=done.id))
        talk.container.sending.wake()
        await waiting(talk, master, sent.id)
        server.fault = None
        await hasten(talk)
        [done] = await settled(talk, master, sent.id)
    assert (done.state, done.generation, len(server.taken)) == ("accepted", 2, 3)


async def test_who_has_unsubscribed_meanwhile_is_told_nothing_twice(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    async with working(talk):
        has_it = await send(talk, master, category="offers")
        await waiting(talk, master, has_it.id)
        server.happened("accepted")
        other = await send(talk, master, category="offers")
        await waiting(talk, master, other.id)
        async with talk.container.notifications.open_consent() as consent:
            await consent.suppress(
                master,
                master.client_id,
                SuppressionCreate(
                    channel="email",
                    address="bob@example.net",
                    scope="category:offers",
                    reason="unsubscribe",
                ),
            )
        await hasten(talk)
        [first] = await settled(talk, master, has_it.id)
        [second] = await settled(talk, master, other.id)
    assert (first.state, first.reason) == ("accepted", None)
    assert (second.state, second.reason) == ("suppressed", "unsubscribe")
    assert len(server.taken) == 2
