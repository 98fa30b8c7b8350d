"""What waits for a person: kept once, told to every device, answered once."""

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatserver.infra.web_push import VapidKey
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.notifications.consent.door import UnsubscribeDoor
from chatserver.notifications.consent.schemas import (
    PreferencesPatch,
    PreferencesPut,
    SuppressionCreate,
    SuppressionList,
)
from chatserver.notifications.consent.service import unsubscribe_token
from chatserver.notifications.devices.schemas import DeviceDelete, DeviceList, DevicePut
from chatserver.notifications.inbox.schemas import (
    NotificationIds,
    NotificationList,
    ReadAll,
    SocketContent,
)
from chatserver.transport.answers import answers
from tests.support.everything import rows_with
from tests.support.people import House
from tests.support.servers import Database, Servers

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = {
    "p256dh": VapidKey.new().public,
    "auth": base64.urlsafe_b64encode(b"a" * 16).decode(),
}


@pytest.fixture(scope="module")
def shared(servers: Servers) -> Iterator[Database]:
    made = servers.fresh_database()
    yield made
    servers.drop(made)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(shared: Database) -> AsyncIterator[House]:
    made = House(shared)
    await made.start()
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def master(house: House) -> Principal:
    house.heard.facts.clear()
    return await house.tenant()


@pytest_asyncio.fixture(loop_scope="module")
async def ann(house: House, master: Principal) -> Principal:
    return await house.person(master, "ann")


async def put(house: House, who: Principal, title: str, delivery_id: UUID | None = None) -> Any:
    """Keep one; the id of the newest that the person has."""
    async with house.container.notifications.open_inbox() as inbox:
        await inbox.put(
            who.client_id,
            who.user_id,
            delivery_id=delivery_id or uuid4(),
            category="news",
            content=SocketContent(title=title, data={"n": 1}),
        )
    return (await page(house, who, limit=1)).items[0].id


async def page(house: House, who: Principal, **more: Any) -> Any:
    async with house.container.notifications.open_inbox() as inbox:
        return await inbox.page(who, NotificationList(**more))


def heard(house: House, name: str) -> list[dict[str, Any]]:
    return [orjson.loads(it.body)["data"] for it in house.heard.facts if it.type == name]


class TestInbox:
    async def test_a_delivery_puts_one_there_and_shows_it_to_the_person_alone(
        self, house: House, ann: Principal
    ) -> None:
        delivery = uuid4()
        made = await put(house, ann, "hello", delivery)
        assert await put(house, ann, "hello", delivery) == made
        [told] = [it for it in house.heard.facts if it.type == "notification.created"]
        assert (told.room_id, told.seq, told.audience) == (None, None, (ann.user_id,))
        assert heard(house, "notification.created")[0]["notification"]["id"] == str(made)
        assert heard(house, "notification.unread") == [{"unread": 1}]

    async def test_it_is_listed_by_cursor(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        made = [await put(house, ann, f"n{n}") for n in range(5)]
        bob = await house.person(master, "bob")
        await put(house, bob, "his")
        first = await page(house, ann, limit=3)
        second = await page(house, ann, limit=3, cursor=UUID(first.next_cursor))
        assert [it.id for it in (*first.items, *second.items)] == list(reversed(made))
        assert (first.unread, second.next_cursor) == (5, None)
        assert [it.title for it in (await page(house, bob)).items] == ["his"]

    async def test_reading_and_acknowledging_count_once(self, house: House, ann: Principal) -> None:
        made = [await put(house, ann, f"n{n}") for n in range(4)]
        house.heard.facts.clear()
        async with house.container.notifications.open_inbox() as inbox:
            ids = NotificationIds(ids=[made[0], made[1], uuid4()])
            assert (await inbox.ack(ann, ids)).acked == 2
            assert (await inbox.ack(ann, ids)).acked == 0
            assert (await inbox.read(ann, ids)).model_dump() == {"read": 2, "unread": 2}
        async with house.container.notifications.open_inbox() as inbox:
            assert (await inbox.read(ann, ids)).read == 0
            assert (await inbox.read_all(ann, ReadAll(up_to=made[2]))).unread == 1
        assert [it["ids"] for it in heard(house, "notification.read")] == [
            [str(made[0]), str(made[1])],
            [str(made[2])],
        ]
        assert heard(house, "notification.unread") == [{"unread": 2}, {"unread": 1}]
        assert [it.id for it in (await page(house, ann, unread_only=True)).items] == [made[3]]

    async def test_nobody_reads_somebody_else_s(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        made = await put(house, ann, "hers")
        bob = await house.person(master, "bob")
        async with house.container.notifications.open_inbox() as inbox:
            assert (await inbox.read(bob, NotificationIds(ids=[made]))).read == 0
            assert (await inbox.ack(bob, NotificationIds(ids=[made]))).acked == 0
            await inbox.read_all(bob, ReadAll())
        assert (await page(house, ann)).unread == 1


class TestDevices:
    async def test_a_token_belongs_to_whoever_registered_it_last(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        bob = await house.person(master, "bob")
        phone = DevicePut(kind="fcm", token="a-token-of-a-phone")
        async with house.container.notifications.open_devices() as devices:
            first = await devices.put(ann, phone)
            assert (await devices.put(ann, phone)).id == first.id
        async with house.container.notifications.open_devices() as devices:
            assert (await devices.put(bob, phone)).id == first.id
            assert (await devices.list(ann, DeviceList())).items == []
            wrong = DeviceDelete(kind="fcm", token="a-token-of-a-phone")
            await devices.delete(ann, wrong)
            assert len((await devices.list(bob, DeviceList())).items) == 1
            await devices.delete(bob, wrong)
            assert (await devices.list(bob, DeviceList())).items == []
        assert await rows_with(house.address.admin_url, "a-token-of-a-phone") == {}

    async def test_a_subscription_leads_nowhere_inside(self, house: House, ann: Principal) -> None:
        inside = DevicePut.model_validate(
            {
                "kind": "web_push",
                "subscription": {"endpoint": "http://127.0.0.1:6379/", "keys": KEYS},
            }
        )
        with pytest.raises(PayloadInvalidError):
            async with house.container.notifications.open_devices() as devices:
                await devices.put(ann, inside)


class TestConsent:
    async def test_preferences_are_replaced_or_changed(self, house: House, ann: Principal) -> None:
        async with house.container.notifications.open_consent() as consent:
            first = {"*": {"email": False}, "news": {"email": True}}
            await consent.prefer(ann, PreferencesPut.model_validate({"preferences": first}))
            change = PreferencesPatch.model_validate({"preferences": {"news": {"push": False}}})
            both = await consent.prefer(ann, change)
            assert both.preferences == {
                "*": {"email": False},
                "news": {"email": True, "push": False},
            }
            assert await consent.wants(ann.user_id, category="news", channel="email")
            assert not await consent.wants(ann.user_id, category="ads", channel="email")
            again = await consent.prefer(ann, PreferencesPut(preferences={}))
            assert again.preferences == {}

    async def test_a_suppressed_address_is_found_and_not_kept(
        self, house: House, master: Principal
    ) -> None:
        async with house.container.notifications.open_consent() as consent:
            asked = SuppressionCreate(channel="email", address="Zoe.Canary@Example.com")
            made = await consent.suppress(master, master.client_id, asked)
            again = await consent.suppress(
                master, master.client_id, asked.model_copy(update={"reason": "complaint"})
            )
            assert (made.created, again.created, again.id) == (True, False, made.id)
            listed = await consent.page(master, SuppressionList(address="zoe.canary@example.com"))
            assert [(it.id, it.reason) for it in listed.items] == [(made.id, "complaint")]
            for priority, reason in (("bulk", "complaint"), ("critical", None)):
                asked_of = [("email", None, "zoe.canary@example.com")]
                assert [reason] == await consent.barred(
                    master.client_id, asked_of, category="news", priority=priority
                )
        other = await house.tenant("Other")
        async with house.container.notifications.open_consent() as consent:
            assert (await consent.page(other, SuppressionList())).items == []
        assert await rows_with(house.address.admin_url, "oe.canary") == {}

    async def test_many_are_asked_about_at_once(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        async with house.container.notifications.open_consent() as consent:
            await consent.prefer(
                ann, PreferencesPut.model_validate({"preferences": {"news": {"socket": False}}})
            )
            blocked = SuppressionCreate(channel="email", address="a@x.example", reason="complaint")
            await consent.suppress(master, master.client_id, blocked)
            asked = [
                ("email", ann.user_id, "A@x.example"),
                ("socket", ann.user_id, None),
                ("socket", uuid4(), None),
                ("webhook", None, "a@x.example"),
            ]
            for priority, expected in (
                ("bulk", ["complaint", "preference", None, None]),
                ("critical", [None, None, None, None]),
            ):
                assert expected == await consent.barred(
                    master.client_id, asked, category="news", priority=priority
                )
            [other, *_] = await consent.barred(
                uuid4(), [("email", None, "a@x.example")], category="news", priority="bulk"
            )
            assert other is None


class TestUnsubscribe:
    @pytest_asyncio.fixture(loop_scope="module")
    async def door(self, house: House) -> AsyncIterator[TestServer]:
        app = web.Application(middlewares=[answers()])
        UnsubscribeDoor(house.container.notifications.open_consent).attach(app)
        server = TestServer(app)
        async with server:
            yield server

    async def blocked(self, house: House, master: Principal, category: str) -> str | None:
        async with house.container.notifications.open_consent() as consent:
            [reason] = await consent.barred(
                master.client_id,
                [("email", None, "ann@example.com")],
                category=category,
                priority="transactional",
            )
            return reason

    async def test_a_filter_that_follows_links_unsubscribes_nobody(
        self, house: House, master: Principal, door: TestServer
    ) -> None:
        async with house.container.notifications.open_consent() as consent:
            token = unsubscribe_token(
                consent._seal, master.client_id, address="ann@example.com", category="news"
            )
        assert "ann" not in token
        url = door.make_url(f"/u/{token}")
        async with aiohttp.ClientSession() as http:
            for _ in range(3):
                async with http.get(url) as shown:
                    assert shown.status == 200
                    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
                    assert '<form method="post">' in await shown.text()
            assert await self.blocked(house, master, "news") is None
            for body in ("", "List-Unsubscribe=Two-Clicks", "x=1"):
                async with http.post(url, data=body) as refused:
                    assert refused.status == 422
            assert await self.blocked(house, master, "news") is None
            # By the mail program, by the button, and again.
            for _ in range(2):
                async with http.post(
                    url, data={"List-Unsubscribe": "One-Click"}, allow_redirects=False
                ) as done:
                    assert done.status == 200
            assert await self.blocked(house, master, "news") == "unsubscribe"
            assert await self.blocked(house, master, "password") is None
            multipart = aiohttp.FormData({"List-Unsubscribe": "One-Click"})
            multipart._is_multipart = True
            async with http.post(url, data=multipart) as done:
                assert done.status == 200

    @pytest.mark.parametrize("token", ["x", "a" * 300, "%00", "ünïcode"])
    async def test_a_token_of_one_s_own_is_not_found(self, door: TestServer, token: str) -> None:
        async with aiohttp.ClientSession() as http:
            for method in ("GET", "POST"):
                data = None if method == "GET" else {"List-Unsubscribe": "One-Click"}
                async with http.request(method, door.make_url(f"/u/{token}"), data=data) as answer:
                    assert answer.status == 404
                    assert (await answer.json())["code"] == "unsubscribe.not_found"

    async def test_what_a_category_is_called_is_text(
        self, house: House, master: Principal, door: TestServer
    ) -> None:
        async with house.container.notifications.open_consent() as consent:
            token = unsubscribe_token(
                consent._seal, master.client_id, address="<script>@x.example", category="<b>"
            )
        async with aiohttp.ClientSession() as http, http.get(door.make_url(f"/u/{token}")) as shown:
            text = await shown.text()
        assert "<script>" not in text
        assert "<b>" not in text
