"""What people and addresses want is asked again just before sending: much happens until then."""

from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatserver.deliveries.schemas import DeliveryRef
from chatserver.kernel.principal import Principal
from chatserver.notifications.consent.schemas import (
    PreferencesPut,
    SuppressionCreate,
    SuppressionPath,
)
from chatserver.notifications.devices.schemas import DevicePut
from tests.support.mail_server import mail_server
from tests.support.notifying import (
    MAIL,
    hasten,
    near,
    send,
    settled,
    smtp,
    waiting,
    working,
)
from tests.support.push_service import push_service
from tests.support.talk import Talk
from tests.support.talking import master

__all__ = ["master", "near"]


@pytest.fixture
async def talk(near: Talk) -> Talk:
    return near


async def suppress(talk: Talk, who: Principal, **members: Any) -> SuppressionPath:
    command = SuppressionCreate.model_validate(
        {"channel": "email", "address": "bob@example.net"} | members
    )
    async with talk.container.notifications.open_consent() as consent:
        kept = await consent.suppress(who, who.client_id, command)
    return SuppressionPath(id=kept.id)


async def come(talk: Talk) -> None:
    """Let the time of what is scheduled come."""
    await talk.run("update delivery set next_at = clock_timestamp() where state = 'scheduled'")


async def scheduled(talk: Talk, master: Principal, **members: Any) -> Any:
    [row] = await talk.rows("select clock_timestamp() + interval '1 hour' as at")
    sent = await send(talk, master, scheduled_at=row["at"].isoformat(), **members)
    assert [it.state for it in sent.deliveries] == ["scheduled"]
    return sent


@pytest.mark.parametrize(
    ("members", "wish", "state"),
    [
        ({}, {"reason": "hard_bounce"}, "suppressed"),
        ({}, {"reason": "complaint"}, "suppressed"),
        ({"priority": "critical"}, {"reason": "hard_bounce"}, "suppressed"),
        ({"priority": "critical"}, {"reason": "complaint"}, "accepted"),
        ({"category": "offers"}, {"scope": "category:offers"}, "suppressed"),
        ({}, {"scope": "category:general"}, "suppressed"),
        ({"category": "orders"}, {"scope": "category:offers"}, "accepted"),
        ({"category": "offers", "priority": "critical"}, {"scope": "category:offers"}, "accepted"),
        ({}, {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "accepted"),
        ({}, {"address": "BOB@example.net"}, "suppressed"),
        ({}, {"address": "rob@example.net"}, "accepted"),
        ({}, {"channel": "webhook"}, "accepted"),
    ],
)
async def test_an_address_suppressed_while_it_was_scheduled(
    talk: Talk,
    master: Principal,
    members: dict[str, Any],
    wish: dict[str, Any],
    state: str,
) -> None:
    async with mail_server() as server, working(talk):
        await smtp(talk, master, server)
        sent = await scheduled(talk, master, **members)
        await suppress(talk, master, **wish)
        await come(talk)
        [done] = await settled(talk, master, sent.id)
    reason = wish.get("reason", "manual") if state == "suppressed" else None
    assert (done.state, done.reason) == (state, reason)
    assert len(server.taken) == (state == "accepted")


async def test_an_address_that_complained_while_its_next_mail_waited_for_a_retry(
    talk: Talk, master: Principal
) -> None:
    async with mail_server() as server, working(talk):
        await smtp(talk, master, server)
        server.behaviour.content = "451 4.3.0 not now"
        sent = await send(talk, master)
        await waiting(talk, master, sent.id)
        kept = await suppress(talk, master, reason="complaint")
        server.behaviour.content = None
        await hasten(talk)
        [done] = await settled(talk, master, sent.id)
        assert (done.state, done.reason, server.taken) == ("suppressed", "complaint", [])
        # Another client's mails to the same address are none of its business.
        other = await talk.client("other")
        await smtp(talk, other, server)
        theirs = await send(talk, other)
        assert (await settled(talk, other, theirs.id))[0].state == "accepted"
        # And taken back, a replay goes out.
        async with talk.container.notifications.open_consent() as consent:
            await consent.delete(master, kept)
        again = await send(talk, master)
        assert (await settled(talk, master, again.id))[0].state == "accepted"


async def test_one_who_unsubscribes_by_the_link_of_an_earlier_mail(
    talk: Talk, master: Principal
) -> None:
    notifications = talk.container.notifications
    async with mail_server() as server, working(talk):
        await smtp(talk, master, server)
        offer = await scheduled(talk, master, category="offers")
        order = await scheduled(talk, master, category="orders")
        token = notifications.unsubscribe_token(master.client_id, "bob@example.net", "offers")
        async with notifications.open_consent() as consent:
            await consent.unsubscribe(token)
        await come(talk)
        ended = [(await settled(talk, master, each.id))[0] for each in (offer, order)]
    assert [(it.state, it.reason) for it in ended] == [
        ("suppressed", "unsubscribe"),
        ("accepted", None),
    ]


async def test_what_a_person_does_not_want_any_more_on_any_channel(
    talk: Talk, master: Principal
) -> None:
    [ann] = await talk.users(master, "ann")
    async with mail_server() as server, push_service() as service, working(talk):
        await smtp(talk, master, server)
        service.public_key = await talk.container.notifications.push_keys.public_key()
        browser = service.browser("ann")
        async with talk.container.notifications.open_devices() as devices:
            await devices.put(
                ann,
                DevicePut.model_validate(
                    {"kind": "web_push", "subscription": browser.subscription}
                ),
            )
        [row] = await talk.rows("select clock_timestamp() + interval '1 hour' as at")
        sent = [
            await send(
                talk,
                master,
                recipients=[{"user_id": "ann", "email": "ann@example.net"}],
                channels={"socket": {"title": "x"}, "email": MAIL, "push": {"title": "x"}},
                category=category,
                priority=priority,
                scheduled_at=row["at"].isoformat(),
            )
            for category, priority in (
                ("offers", "bulk"),
                ("orders", "transactional"),
                ("offers", "critical"),
            )
        ]
        chosen = {
            "offers": {"email": False, "push": False, "socket": False},
            "*": {"push": False},
            "orders": {"push": True},
        }
        async with talk.container.notifications.open_consent() as consent:
            await consent.prefer(ann, PreferencesPut.model_validate({"preferences": chosen}))
        await come(talk)
        states = [
            {(it.channel, it.state, it.reason) for it in await settled(talk, master, each.id)}
            for each in sent
        ]
    everything = {(channel, "accepted", None) for channel in ("socket", "email", "push")}
    assert states == [
        {(channel, "suppressed", "preference") for channel in ("socket", "email", "push")},
        everything,
        everything,
    ]
    assert (len(server.taken), len(await talk.rows("select 1 from in_app_notification"))) == (2, 2)


async def test_a_url_suppressed_meanwhile_and_what_was_to_come_instead_comes_at_once(
    talk: Talk, master: Principal
) -> None:
    called: list[str] = []

    async def hook(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", hook)
    async with mail_server() as server, TestServer(app) as hooks, working(talk):
        await smtp(talk, master, server)
        url = str(hooks.make_url("/hook"))
        [row] = await talk.rows("select clock_timestamp() + interval '1 hour' as at")
        sent = await send(
            talk,
            master,
            recipients=[{"url": url, "email": "bob@example.net"}],
            channels={"webhook": {"data": {}}, "email": MAIL},
            fallback=[{"channel": "email", "after": "1d", "unless": "delivered"}],
            scheduled_at=row["at"].isoformat(),
        )
        await suppress(talk, master, channel="webhook", address=url)
        await talk.run("update delivery set next_at = clock_timestamp() where channel = 'forward'")
        ended = await settled(talk, master, sent.id)
    assert {(it.channel, it.state) for it in ended} == {
        ("webhook", "suppressed"),
        ("email", "accepted"),
    }
    assert called == []


async def test_replaying_what_was_suppressed_does_not_pass_the_list(
    talk: Talk, master: Principal
) -> None:
    async with mail_server() as server, working(talk):
        await smtp(talk, master, server)
        server.behaviour.recipient = "550 5.1.1 no such user"
        sent = await send(talk, master)
        [done] = await settled(talk, master, sent.id)
        assert done.state == "bounced"
        server.behaviour.recipient = None
        async with talk.container.webhooks.open_deliveries() as opened:
            await opened.replay(master, DeliveryRef(id=done.id))
        talk.container.sending.wake()
        [done] = await settled(talk, master, sent.id)
        assert (done.state, done.reason, server.taken) == ("suppressed", "hard_bounce", [])
