"""Notifications from the request to the last state, against real servers."""

from typing import Any

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
    NotificationRef,
    SendNotification,
    SentNotification,
)
from chatserver.providers.schemas import CreateProvider
from chatserver.users.errors import UserNotFoundError
from tests.support.mail_server import mail_server
from tests.support.nodes import eventually
from tests.support.notifying import MAIL, deliveries, near, send, settled, smtp, working
from tests.support.talk import Talk
from tests.support.talking import master, second, talk

__all__ = ["master", "near", "second", "talk"]


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

    async def test_what_is_planned_for_one_that_was_just_stopped_goes_to_another(
        self, near: Talk, master: Principal
    ) -> None:
        async with mail_server() as broken, mail_server() as sound:
            first = await smtp(near, master, broken, position=0)
            await smtp(near, master, sound, position=1)
            stopped = (
                "update delivery_target set state = 'paused',"
                " open_until = clock_timestamp() + interval '1 hour' where id = $1"
            )
            waits = await send(near, master)
            # As if the request had read its providers before, and was committed after this.
            await near.run(stopped, first)
            later = await send(near, master, priority="critical")
            async with working(near):
                for each in (waits, later):
                    [done] = await settled(near, master, each.id)
                    assert (done.state, done.tries) == ("accepted", 1)
        assert (broken.connections, len(sound.taken)) == (1, 2)  # one verified it

    async def test_one_that_was_stopped_is_probed_by_what_is_not_urgent(
        self, near: Talk, master: Principal
    ) -> None:
        async with mail_server() as mended, mail_server() as sound:
            first = await smtp(near, master, mended, position=0)
            await smtp(near, master, sound, position=1)
            await near.run(
                "update delivery_target set state = 'paused', open_until = clock_timestamp()"
                " where id = $1",
                first,
            )
            async with working(near):
                for priority in ("critical", "transactional"):
                    sent = await send(near, master, priority=priority)
                    await settled(near, master, sent.id)

                async def is_well() -> bool:
                    rows = await near.rows("select state from delivery_target where id = $1", first)
                    return bool(rows[0]["state"] == "active")

                await eventually(is_well, why="it is well again")
        assert (len(sound.taken), len(mended.taken)) == (1, 1)

    async def test_what_may_have_arrived_stays_when_its_provider_is_stopped(
        self, near: Talk, master: Principal
    ) -> None:
        async with mail_server() as first, mail_server() as other:
            provider_id = await smtp(near, master, first, position=0)
            await smtp(near, master, other, position=1)
            sent = await send(near, master)
            await near.run(
                "update delivery set state = 'retry_wait', reason = 'unknown_outcome',"
                " next_at = clock_timestamp()"
            )
            await near.run(
                "update delivery_target set state = 'paused',"
                " open_until = clock_timestamp() + interval '1 hour' where id = $1",
                provider_id,
            )
            lookup = near.container.sending.lookup
            assert await lookup.reroute_stuck("email") == 0
            assert await lookup.reroute_all(provider_id, "email") == 0
            await near.run("update delivery set reason = 'data_451'")
            assert await lookup.reroute_stuck("email") == 1
            assert sent.deliveries[0].state == "queued"

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
            fallback=[{"channel": "email", "after": 1, "unless": "read"}],
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
        {"recipients": [{"url": "ftp://example.org/hook"}]},
        {"recipients": [{"url": "https://"}]},
        {"recipients": [{"url": "https://example.org/a b"}]},
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
