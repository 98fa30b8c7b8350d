"""Notifications from the request to the last state, against real servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.notifications.requests.errors import NotificationNotFoundError
from chatserver.notifications.requests.schemas import (
    ListNotificationDeliveries,
    ListNotifications,
    NotificationDeliveryOut,
    NotificationRef,
    SendNotification,
    SentNotification,
)
from chatserver.providers.schemas import CreateProvider
from chatserver.users.errors import UserNotFoundError
from tests.support.mail_server import MailServer, mail_server
from tests.support.nodes import eventually
from tests.support.servers import Database
from tests.support.talk import Talk
from tests.support.talking import master, second, talk
from workers.notifications import NotificationLanes

__all__ = ["master", "second", "talk"]

MAIL = {"subject": "Your order", "text": "It is on its way."}


@pytest.fixture
async def near(database: Database) -> AsyncIterator[Talk]:
    """A process that may reach this machine."""
    made = Talk(database, allow_private_addresses=True, public_url="https://chat.example.org")
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def working(talk: Talk) -> AsyncIterator[NotificationLanes]:
    """The lanes of a worker, in this loop."""
    sending = talk.container.sending
    lanes = NotificationLanes(
        queue=sending.queue, senders=sending.senders, notes=sending.notes, slots=50
    )
    sending.wake_here = lanes.wake
    tasks = [asyncio.create_task(lane.run()) for lane in lanes.lanes]
    try:
        yield lanes
    finally:
        await asyncio.gather(*(lane.stop(grace_s=1) for lane in lanes.lanes))
        await asyncio.gather(*tasks)


async def send(talk: Talk, who: Principal, **members: Any) -> SentNotification:
    command = SendNotification.model_validate(
        {"recipients": [{"email": "bob@example.net"}], "channels": {"email": MAIL}} | members
    )
    async with talk.container.sending.open_notifications() as notifications:
        return await notifications.send(who, command)


async def deliveries(
    talk: Talk, who: Principal, notification_id: UUID
) -> list[NotificationDeliveryOut]:
    async with talk.container.sending.open_notifications() as notifications:
        page = await notifications.deliveries(
            who, ListNotificationDeliveries(id=notification_id, limit=100)
        )
    return page.items


async def settled(talk: Talk, who: Principal, notification_id: UUID) -> list[Any]:
    """Wait until nothing is on its way any more."""
    waiting = {"queued", "sending", "retry_wait", "scheduled"}
    states: list[Any] = []

    async def all_ended() -> list[Any] | None:
        found = await deliveries(talk, who, notification_id)
        states[:] = [(each.state, each.reason, each.tries) for each in found]
        return found if all(each.state not in waiting for each in found) else None

    try:
        ended: list[Any] = await eventually(all_ended, within_s=40, why="deliveries ended")
    except AssertionError as error:
        raise AssertionError(states) from error
    return ended


async def smtp(talk: Talk, who: Principal, server: MailServer, **members: Any) -> UUID:
    config = {"host": "127.0.0.1", "port": server.port, "tls": "none", "from": "shop@example.org"}
    command = CreateProvider.model_validate(
        {"channel": "email", "kind": "smtp", "name": "ours", "config": config} | members
    )
    return (await talk.container.providers.checks.create(who, command)).id


class TestEmail:
    async def test_it_is_handed_over_once_and_says_so(self, near: Talk, master: Principal) -> None:
        async with mail_server() as server, working(near):
            await smtp(near, master, server)
            sent = await send(near, master, category="orders")
            assert [each.state for each in sent.deliveries] == ["queued"]
            [done] = await settled(near, master, sent.id)
        assert (done.state, done.reason, done.tries) == ("accepted", None, 1)
        assert done.recipient == {"email": "bob@example.net"}
        [mail] = server.mails()
        assert (mail["Subject"], mail["To"]) == ("Your order", "bob@example.net")
        assert mail["Message-ID"] == f"<{done.id}@example.org>"
        assert mail["List-Unsubscribe"].startswith("<https://chat.example.org/u/")
        kept = await near.rows("select * from notification_content, notification_delivery")
        assert "bob@example.net" not in f"{kept}"

    async def test_an_unknown_mailbox_bounces_and_gets_nothing_more(
        self, near: Talk, master: Principal
    ) -> None:
        async with mail_server() as server, working(near):
            provider_id = await smtp(near, master, server)
            server.behaviour.recipient = "550 5.1.1 no such user"
            sent = await send(near, master)
            [done] = await settled(near, master, sent.id)
            assert (done.state, done.reason) == ("bounced", "recipient_5.1.1")
            server.behaviour.recipient = None
            again = await send(near, master)
            assert [(it.state, it.reason) for it in again.deliveries] == [
                ("suppressed", "hard_bounce")
            ]
            [target] = await near.rows(
                "select state, failures from delivery_target where id = $1", provider_id
            )
        assert (target["state"], target["failures"]) == ("active", 0)
        assert server.taken == []

    @pytest.mark.soak  # waits for a provider's probe
    async def test_what_one_provider_can_not_do_another_does(
        self, near: Talk, master: Principal
    ) -> None:
        async with mail_server() as broken, mail_server() as sound, working(near):
            await smtp(near, master, broken, position=0)
            await smtp(near, master, sound, position=1)
            broken.behaviour.mail = "553 5.7.1 not your address"
            sent = [
                await send(near, master, recipients=[{"email": f"b{n}@example.net"}])
                for n in range(8)
            ]
            for each in sent:
                [done] = await settled(near, master, each.id)
                assert done.state == "accepted"
        assert (len(broken.taken), len(sound.taken)) == (0, 8)
        assert len({mail["Message-ID"] for mail in sound.mails()}) == 8

    async def test_one_that_may_have_arrived_is_never_sent_by_another(
        self, near: Talk, master: Principal
    ) -> None:
        async with mail_server() as first, mail_server() as other, working(near):
            await smtp(near, master, first, position=0)
            await smtp(near, master, other, position=1)
            first.behaviour.fault = "drop"
            offer = await send(near, master, priority="bulk")
            [done] = await settled(near, master, offer.id)
            assert (done.state, done.reason) == ("failed", "unknown_outcome")
            order = await send(near, master)

            async def is_waiting() -> bool:
                return (await deliveries(near, master, order.id))[0].state == "retry_wait"

            await eventually(is_waiting, why="it is tried again later")
            [waits] = await deliveries(near, master, order.id)
        assert waits.reason == "unknown_outcome"
        assert waits.next_at is not None
        assert (len(first.taken), other.taken) == (2, [])

    async def test_without_a_provider_it_fails_at_once(self, near: Talk, master: Principal) -> None:
        sent = await send(near, master)
        assert [(it.state, it.reason) for it in sent.deliveries] == [("failed", "no_provider")]

    async def test_whoever_unsubscribed_is_left_alone_but_for_what_is_urgent(
        self, near: Talk, master: Principal
    ) -> None:
        token = near.container.notifications.unsubscribe_token(
            master.client_id, "bob@example.net", "offers"
        )
        async with near.container.notifications.open_consent() as consent:
            await consent.unsubscribe(token)
        async with mail_server() as server:
            await smtp(near, master, server)
            for members, state in (
                ({"category": "offers"}, "suppressed"),
                ({"category": "orders"}, "queued"),
                ({"category": "offers", "priority": "critical"}, "queued"),
            ):
                sent = await send(near, master, **members)
                assert [it.state for it in sent.deliveries] == [state]


class TestSocket:
    async def test_it_is_stored_with_the_request_and_shown(
        self, near: Talk, master: Principal
    ) -> None:
        await near.users(master, "alice")
        sent = await send(
            near,
            master,
            recipients=[{"user_id": "alice"}],
            channels={"socket": {"title": "Hi", "data": {"order": 42}}},
        )
        [planned] = sent.deliveries
        assert (planned.state, planned.recipient) == ("accepted", {"user_id": "alice"})
        [kept] = await near.rows("select * from in_app_notification")
        assert (kept["title"], kept["delivery_id"]) == ("Hi", planned.id)
        types = [fact.type for fact in near.shown.facts]
        assert types.count("notification.created") == 1

    async def test_an_unknown_person_is_named_and_nothing_is_kept(
        self, near: Talk, master: Principal
    ) -> None:
        with pytest.raises(UserNotFoundError):
            await send(
                near,
                master,
                recipients=[{"user_id": "nobody"}],
                channels={"socket": {"title": "Hi"}},
            )
        assert await near.rows("select 1 from delivery") == []


class TestFallback:
    async def told(self, near: Talk, master: Principal, **members: Any) -> SentNotification:
        return await send(
            near,
            master,
            recipients=[{"user_id": "alice", "email": "alice@example.net"}],
            channels={"socket": {"title": "Hi"}, "email": MAIL},
            fallback=[{"channel": "email", "after": "1s", "unless": "read"}],
            **members,
        )

    async def test_who_has_read_it_gets_no_mail(self, near: Talk, master: Principal) -> None:
        [alice] = await near.users(master, "alice")
        async with mail_server() as server:
            await smtp(near, master, server)
            sent = await self.told(near, master)
            assert [(it.channel, it.state) for it in sent.deliveries] == [
                ("socket", "accepted"),
                ("email", "scheduled"),
            ]
            await near.run(
                "update in_app_notification set read_at = now() where user_id = $1", alice.user_id
            )
            async with working(near):
                done = await settled(near, master, sent.id)
        assert {(it.channel, it.state, it.reason) for it in done} == {
            ("socket", "accepted", None),
            ("email", "cancelled", "fallback_not_needed"),
        }
        assert server.taken == []

    async def test_who_has_not_gets_one(self, near: Talk, master: Principal) -> None:
        await near.users(master, "alice")
        async with mail_server() as server, working(near):
            await smtp(near, master, server)
            sent = await self.told(near, master)
            done = await settled(near, master, sent.id)
        assert {(it.channel, it.state) for it in done} == {
            ("socket", "accepted"),
            ("email", "accepted"),
        }
        assert len(server.taken) == 1

    async def test_who_can_not_be_reached_gets_it_at_once(
        self, near: Talk, master: Principal
    ) -> None:
        async with mail_server() as server, working(near):
            await smtp(near, master, server)
            sent = await send(
                near,
                master,
                channels={"webhook": {"data": {}}, "email": MAIL},
                fallback=[{"channel": "email", "after": "1d", "unless": "accepted"}],
            )
            done = await settled(near, master, sent.id)
        assert {(it.channel, it.state, it.reason) for it in done} == {
            ("webhook", "suppressed", "no_address"),
            ("email", "accepted", None),
        }


class TestWebhook:
    async def test_it_is_posted_signed_and_tried_again(self, near: Talk, master: Principal) -> None:
        secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        came: list[dict[str, Any]] = []

        async def receive(request: web.Request) -> web.Response:
            came.append(Webhook(secret).verify(await request.read(), dict(request.headers)))
            return web.Response(status=200 if len(came) > 1 else 500)

        app = web.Application()
        app.router.add_post("/hook", receive)
        provider = {"channel": "webhook", "kind": "standard", "name": "w"}
        await near.container.providers.checks.create(
            master, CreateProvider.model_validate({**provider, "config": {"secret": secret}})
        )
        async with TestServer(app) as server, working(near):
            sent = await send(
                near,
                master,
                recipients=[{"url": str(server.make_url("/hook"))}],
                channels={"webhook": {"type": "order.sent", "data": {"n": 1}}},
                priority="critical",
            )
            [done] = await settled(near, master, sent.id)
        assert (done.state, done.channel, done.tries) == ("delivered", "webhook", 2)
        assert [each["id"] for each in came] == [str(done.id)] * 2
        assert came[0]["data"] == {"n": 1}


async def test_cancelling_ends_what_waits_and_nothing_else(near: Talk, master: Principal) -> None:
    await near.users(master, "alice")
    async with mail_server() as server:
        await smtp(near, master, server)
        sent = await send(
            near,
            master,
            recipients=[{"user_id": "alice", "email": "a@example.net"}],
            channels={"socket": {"title": "Hi"}, "email": MAIL},
        )
        async with near.container.sending.open_notifications() as notifications:
            done = await notifications.cancel(master, NotificationRef(id=sent.id))
            again = await notifications.cancel(master, NotificationRef(id=sent.id))
            found = await notifications.get(master, NotificationRef(id=sent.id))
    assert (done.cancelled, again.cancelled) == (1, 0)
    assert found.states == {"accepted": 1, "cancelled": 1}
    assert found.cancelled_at is not None


async def test_a_dry_run_plans_everything_and_keeps_nothing(near: Talk, master: Principal) -> None:
    sent = await send(near, master, dry_run=True)
    assert sent.dry_run
    assert [it.state for it in sent.deliveries] == ["failed"]
    assert await near.rows("select 1 from notification") == []
    assert await near.rows("select 1 from delivery") == []


async def test_the_ledger_balances(near: Talk, master: Principal) -> None:
    people = [f"p{n}" for n in range(20)]
    await near.users(master, *people)
    async with mail_server() as server, working(near):
        await smtp(near, master, server)
        sent = await send(
            near,
            master,
            recipients=[{"user_id": name, "email": f"{name}@example.net"} for name in people]
            + [{"user_id": "p1"}, {"email": "p1@example.net"}],
            channels={"socket": {"title": "Hi"}, "email": MAIL, "sms": {"text": "Hi"}},
        )
        done = await settled(near, master, sent.id)
    states: dict[tuple[str, str], int] = {}
    for each in done:
        states[each.channel, each.state] = states.get((each.channel, each.state), 0) + 1
    assert states == {
        ("socket", "accepted"): 20,
        ("socket", "suppressed"): 1,
        ("email", "accepted"): 20,
        ("email", "suppressed"): 1,
        ("sms", "suppressed"): 22,
    }
    assert len(server.taken) == 20
    [promised] = await near.rows("select sum(promised) as n from delivery_day")
    assert promised["n"] == len(done)


async def test_its_deliveries_are_paged_by_a_cursor_in_the_order_of_the_recipients(
    near: Talk, master: Principal
) -> None:
    addresses = [f"person-{number}@example.net" for number in range(5)]
    sent = await send(near, master, recipients=[{"email": each} for each in addresses])
    seen: list[str] = []
    cursor: str | None = None
    sizes = []
    async with near.container.sending.open_notifications() as notifications:
        while True:
            asked = {"id": str(sent.id), "limit": 2} | ({"cursor": cursor} if cursor else {})
            page = await notifications.deliveries(
                master, ListNotificationDeliveries.model_validate(asked)
            )
            seen += [each.recipient["email"] for each in page.items]
            sizes.append(len(page.items))
            cursor = page.next_cursor
            if cursor is None:
                break
    assert (seen, sizes) == (addresses, [2, 2, 1])


async def test_nobody_elses_is_seen(near: Talk, master: Principal) -> None:
    sent = await send(near, master)
    other = await near.client("other")
    async with near.container.sending.open_notifications() as notifications:
        assert (await notifications.list(other, ListNotifications())).total == 0
        assert (await notifications.list(master, ListNotifications())).total == 1
        for refused in (
            notifications.get(other, NotificationRef(id=sent.id)),
            notifications.cancel(other, NotificationRef(id=sent.id)),
            notifications.deliveries(other, ListNotificationDeliveries(id=sent.id)),
        ):
            with pytest.raises(NotificationNotFoundError):
                await refused


@pytest.mark.parametrize(
    "members",
    [
        {"recipients": []},
        {"recipients": [{}]},
        {"recipients": [{"email": "no address"}]},
        {"channels": {}},
        {"channels": {"email": {"subject": "x"}}},
        {"channels": {"email": {"subject": "x\r\nBcc: y", "text": "z"}}},
        {"channels": {"email": MAIL | {"headers": {"Bcc": "eve@example.org"}}}},
        {"fallback": [{"channel": "sms"}]},
        {"fallback": [{"channel": "email"}]},
        {"scheduled_at": "2030-01-01T00:00:00"},
        {"metadata": {"x": "y" * 300_000}},
    ],
)
async def test_what_is_wrong_is_refused(members: dict[str, Any]) -> None:
    given = {"recipients": [{"email": "bob@example.net"}], "channels": {"email": MAIL}} | members
    with pytest.raises(ValueError, match=r"\w"):
        SendNotification.model_validate(given)


async def test_a_deadline_before_the_start_is_refused(near: Talk, master: Principal) -> None:
    with pytest.raises(PayloadInvalidError):
        await send(near, master, expires_at="2020-01-01T00:00:00Z")
