"""Mailgun's events that no callback brought: asked for, counted once, however they came."""

from collections.abc import AsyncIterator

import pytest

from chatserver.infra.mailgun import PAGE
from chatserver.kernel.clock import utc_now
from chatserver.kernel.principal import Principal
from tests.support.mailgun_server import HARD, MailgunServer, mailgun_server
from tests.support.notifying import mailgun, near, send, settled, working
from tests.support.talk import Talk
from tests.support.talking import master
from workers.mail_events import MailEventJobs

__all__ = ["master", "near"]


@pytest.fixture
async def talk(near: Talk) -> Talk:
    return near


@pytest.fixture
async def server(talk: Talk, master: Principal) -> AsyncIterator[MailgunServer]:
    async with mailgun_server() as made:
        # Without a key for callbacks: none can come.
        await mailgun(talk, master, made, signing_key=None)
        yield made


async def ask(talk: Talk) -> int:
    sending, providers = talk.container.sending, talk.container.providers
    return await MailEventJobs(
        sending.open_callbacks, mailgun=providers.mailgun, lost=sending.lost, clock=utc_now
    ).ask_all()


async def handed_over(talk: Talk, master: Principal) -> None:
    async with working(talk):
        sent = await send(talk, master)
        assert (await settled(talk, master, sent.id))[0].state == "accepted"


async def state(talk: Talk) -> tuple[str, str | None]:
    [row] = await talk.rows("select state, reason from delivery")
    return row["state"], row["reason"]


async def test_what_nobody_told_is_found_and_counts_once(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    await handed_over(talk, master)
    assert await ask(talk) == 0
    server.happened("delivered")
    assert (await ask(talk), await state(talk)) == (1, ("delivered", None))
    assert await ask(talk) == 0
    server.happened("failed", **HARD)
    assert (await ask(talk), await state(talk)) == (1, ("bounced", "bounced_5.1.1"))
    refused = await send(talk, master)
    assert [(it.state, it.reason) for it in refused.deliveries] == [("suppressed", "hard_bounce")]


async def test_all_pages_are_read_and_what_is_not_ours_is_left_alone(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    await handed_over(talk, master)
    words = {"user-variables": {}, "delivery-status": {"message": "x" * 2000}}
    for _ in range(PAGE + 1):
        server.happened("delivered", **words)  # type: ignore[arg-type]
    server.happened("delivered")
    assert (await ask(talk), await state(talk)) == (1, ("delivered", None))


async def test_while_it_is_handed_over_the_event_waits_for_the_next_look(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    await handed_over(talk, master)
    server.happened("delivered")
    await talk.run("update delivery set state = 'sending'")
    assert await ask(talk) == 0
    await talk.run("update delivery set state = 'accepted'")
    assert (await ask(talk), await state(talk)) == (1, ("delivered", None))


async def test_one_that_can_not_be_asked_keeps_nobody_else_waiting(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    await handed_over(talk, master)
    server.happened("delivered")
    other = await talk.client("other")
    async with mailgun_server() as broken:
        await mailgun(talk, other, broken)
        broken.events_status = 500
        assert await ask(talk) == 1
