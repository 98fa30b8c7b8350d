"""Web push from the request to the browser, against a push service that refuses on command."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatserver.deliveries.schemas import DeliveryRef
from chatserver.infra.web_push import bytes_of, check_point
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.notifications.devices.schemas import DevicePut
from chatserver.notifications.push.door import VapidDoor
from chatserver.transport.answers import answers
from tests.support.mail_server import mail_server
from tests.support.nodes import eventually
from tests.support.notifying import near, send, settled, smtp, working
from tests.support.push_service import Browser, PushService, push_service
from tests.support.talk import Talk
from tests.support.talking import master, second, talk

__all__ = ["master", "near", "second", "talk"]

PUSH = {"title": "Hi", "body": "Your order left us", "data": {"order": 42}}


@pytest.fixture
async def service(near: Talk) -> AsyncIterator[PushService]:
    async with push_service() as made:
        made.public_key = await near.container.notifications.push_keys.public_key()
        yield made


async def register(talk: Talk, who: Principal, browser: Browser) -> UUID:
    command = DevicePut.model_validate({"kind": "web_push", "subscription": browser.subscription})
    async with talk.container.notifications.open_devices() as devices:
        return (await devices.put(who, command)).id


async def push(talk: Talk, master: Principal, *names: str, **members: Any) -> Any:
    return await send(
        talk,
        master,
        recipients=[{"user_id": name} for name in names or ("alice",)],
        **({"channels": {"push": PUSH}} | members),
    )


async def attempts(talk: Talk, master: Principal, delivery_id: UUID) -> list[Any]:
    async with talk.container.webhooks.open_deliveries() as deliveries:
        shown = await deliveries.get(master, DeliveryRef(id=delivery_id), lambda _, __: {})
    assert shown.attempts is not None
    return shown.attempts


async def test_every_browser_of_a_person_reads_it_and_nobody_elses(
    near: Talk, master: Principal, service: PushService
) -> None:
    alice, bob = await near.users(master, "alice", "bob")
    phone, laptop, other = (service.browser(name) for name in ("phone", "laptop", "other"))
    await register(near, alice, phone)
    await register(near, alice, laptop)
    await register(near, bob, other)
    async with working(near):
        sent = await push(near, master, category="orders")
        assert [(it.channel, it.recipient, it.state) for it in sent.deliveries] == [
            ("push", {"user_id": "alice"}, "queued")
        ]
        [done] = await settled(near, master, sent.id)
    assert (done.state, done.reason, done.tries) == ("accepted", None, 1)
    assert done.recipient == {"user_id": "alice"}
    for browser in (phone, laptop):
        assert browser.read() == [{"id": str(done.id), "category": "orders", **PUSH}]
    assert other.read() == []
    tried = await attempts(near, master, done.id)
    assert [(it.no, it.outcome, it.status) for it in tried] == [(1, "accepted", 201)] * 2
    assert len({it.device_id for it in tried}) == 2


@pytest.mark.parametrize(
    ("priority", "urgency", "longest_s"),
    [("critical", "high", 600), ("transactional", "normal", 172_800), ("bulk", "low", 172_800)],
)
async def test_the_push_service_learns_how_urgent_it_is_and_how_long_it_is_good(
    near: Talk, master: Principal, service: PushService, priority: str, urgency: str, longest_s: int
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("phone"))
    async with working(near):
        for key in ("order-42", None):
            sent = await push(
                near,
                master,
                priority=priority,
                channels={"push": PUSH | ({"collapse_key": key} if key else {})},
            )
            await settled(near, master, sent.id)
    (_, first, _), (_, other, _) = service.taken
    assert first["Urgency"] == urgency
    assert longest_s - 60 < int(first["TTL"]) <= longest_s
    assert first["Content-Encoding"] == "aes128gcm"
    assert first["Topic"] != other["Topic"]
    assert "order-42" not in first["Topic"]
    assert max(len(first["Topic"]), len(other["Topic"])) <= 32


@pytest.mark.parametrize("status", [404, 410])
async def test_a_browser_that_is_gone_is_forgotten_and_the_others_get_it(
    near: Talk, master: Principal, service: PushService, status: int
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("old"))
    kept = await register(near, alice, service.browser("new"))
    service.answers["old"] = status
    async with working(near):
        sent = await push(near, master)
        [done] = await settled(near, master, sent.id)
    assert done.state == "accepted"
    assert [row["id"] for row in await near.rows("select id from push_device")] == [kept]
    tried = await attempts(near, master, done.id)
    assert {(it.outcome, it.status) for it in tried} == {("accepted", 201), ("gone", status)}


async def test_when_the_last_browser_is_gone_the_fallback_goes_at_once(
    near: Talk, master: Principal, service: PushService
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("old"))
    service.answers["*"] = 410
    async with mail_server() as server, working(near):
        await smtp(near, master, server)
        asked: dict[str, Any] = {
            "recipients": [{"user_id": "alice", "email": "alice@example.net"}],
            "channels": {"push": PUSH, "email": {"subject": "Hi", "text": "Hi"}},
            "fallback": [{"channel": "email", "after": "1h", "unless": "accepted"}],
        }
        first = await send(near, master, **asked)
        done = await settled(near, master, first.id)
        assert {(it.channel, it.state, it.reason) for it in done} == {
            ("push", "bounced", "subscription_gone"),
            ("email", "accepted", None),
        }
        # From now on there is no device: nothing to wait for.
        second = await send(near, master, **asked)
        assert {(it.channel, it.state, it.reason) for it in second.deliveries} == {
            ("push", "suppressed", "no_address"),
            ("email", "scheduled", None),
        }
        done = await settled(near, master, second.id)
    assert {(it.channel, it.state) for it in done} == {
        ("push", "suppressed"),
        ("email", "accepted"),
    }
    assert len(server.taken) == 2


async def test_who_has_it_is_left_alone_while_others_are_tried_again(
    near: Talk, master: Principal, service: PushService
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("sound"))
    await register(near, alice, service.browser("broken"))
    service.answers["broken"] = 503
    async with working(near):
        sent = await push(near, master, priority="critical")
        await eventually(lambda: service.asked.count("broken") == 2, why="it is tried again")
        service.answers.clear()
        [done] = await settled(near, master, sent.id)
    assert (done.state, done.tries) == ("accepted", 3)
    assert service.asked.count("sound") == 1
    assert len(service.browser("sound").service.taken) == 2


async def test_what_has_reached_one_device_has_arrived_when_time_is_up(
    near: Talk, master: Principal, service: PushService
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("sound"))
    await register(near, alice, service.browser("broken"))
    service.answers["broken"] = 500
    async with working(near) as lanes:
        sent = await push(near, master)
        await eventually(lambda: len(service.asked) == 2, why="both were asked")
        delivery_id = sent.deliveries[0].id

        async def is_waiting() -> bool:
            rows = await near.rows("select state from delivery where id = $1", delivery_id)
            return bool(rows[0]["state"] == "retry_wait")

        await eventually(is_waiting, why="it waits for its next try")
        await near.run("update delivery set expires_at = now() where id = $1", delivery_id)
        await lanes.lanes[0].sweep()
        [done] = await settled(near, master, sent.id)
    assert (done.state, done.reason) == ("accepted", None)


async def test_a_service_that_wants_to_be_left_in_peace_is(
    near: Talk, master: Principal, service: PushService
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("phone"))
    service.answers["*"], service.headers["Retry-After"] = 429, "100"
    async with working(near):
        first = await push(near, master)
        await eventually(lambda: service.asked, why="it was asked")

        async def wait_of(sent: Any) -> Any:
            rows = await near.rows(
                "select attempts, reason, extract(epoch from next_at - clock_timestamp()) as left_s"
                " from delivery where id = $1 and state = 'retry_wait'",
                sent.deliveries[0].id,
            )
            return rows[0] if rows else None

        waits = await eventually(lambda: wait_of(first), why="it waits")
        assert (waits["attempts"], waits["reason"]) == (1, "status_429")
        assert 75 < waits["left_s"] <= 121
        # The next one does not even ask, and uses up nothing.
        other = await push(near, master)
        waits = await eventually(lambda: wait_of(other), why="it waits")
        assert (waits["attempts"], waits["reason"]) == (0, "push_service_resting")
    assert service.asked == ["phone"]


async def test_what_a_service_will_never_take_fails_at_once(
    near: Talk, master: Principal, service: PushService
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("phone"))
    service.answers["*"] = 413
    async with working(near):
        sent = await push(near, master)
        [done] = await settled(near, master, sent.id)
    assert (done.state, done.reason) == ("failed", "payload_too_large")
    assert len(await near.rows("select 1 from push_device")) == 1


async def test_the_largest_content_that_is_taken_fits_what_services_must_take(
    near: Talk, master: Principal, service: PushService
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("phone"))
    largest = {"title": "é" * 256, "data": {"text": "x" * 3250}}
    async with working(near):
        sent = await push(near, master, category="c" * 64, channels={"push": largest})
        [done] = await settled(near, master, sent.id)
    assert done.state == "accepted"
    with pytest.raises(ValueError, match="3800 bytes"):
        await push(near, master, channels={"push": {"title": "x", "data": {"text": "é" * 1900}}})


async def test_mobile_devices_have_no_adapter_and_say_so(near: Talk, master: Principal) -> None:
    [alice] = await near.users(master, "alice")
    async with near.container.notifications.open_devices() as devices:
        await devices.put(alice, DevicePut.model_validate({"kind": "fcm", "token": "t" * 32}))
    sent = await push(near, master, "alice", "nobody")
    assert [(it.recipient, it.state, it.reason) for it in sent.deliveries] == [
        ({"user_id": "alice"}, "failed", "no_provider"),
        ({"user_id": "nobody"}, "suppressed", "no_address"),
    ]


async def test_whoever_does_not_want_it_is_not_pushed_to(
    near: Talk, master: Principal, service: PushService
) -> None:
    [alice] = await near.users(master, "alice")
    await register(near, alice, service.browser("phone"))
    await near.run(
        "insert into preference (user_id, category, channel, client_id, enabled)"
        " values ($1, 'offers', 'push', $2, false)",
        alice.user_id,
        master.client_id,
    )
    sent = await push(near, master, category="offers")
    assert [(it.state, it.reason) for it in sent.deliveries] == [("suppressed", "preference")]


async def test_the_key_is_made_once_for_all_nodes_and_kept_sealed(talk: Talk, second: Talk) -> None:
    keys = [await each.container.notifications.push_keys.public_key() for each in (talk, second)]
    assert keys[0] == keys[1]
    [kept] = await talk.rows("select sealed from server_key")
    vapid = await talk.container.notifications.push_keys.vapid()
    assert vapid._key.to_bytes() not in kept["sealed"]


async def test_browsers_learn_the_key_without_logging_in(talk: Talk) -> None:
    app = web.Application(middlewares=[answers()])
    VapidDoor(talk.container.notifications.push_keys).attach(app)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession() as http,
        http.get(server.make_url("/push/vapid-key")) as answer,
    ):
        said = await answer.json()
    assert said == {"public_key": await talk.container.notifications.push_keys.public_key()}
    check_point(bytes_of(said["public_key"]))


async def test_a_subscription_to_a_private_address_is_refused(
    talk: Talk, master: Principal
) -> None:
    [alice] = await talk.users(master, "alice")
    service = PushService(url="https://127.0.0.1")
    with pytest.raises(PayloadInvalidError):
        await register(talk, alice, service.browser("inside"))
