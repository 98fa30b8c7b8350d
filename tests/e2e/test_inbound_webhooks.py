"""Vendors make things happen in rooms: the guide's examples as they stand, and a worker's death."""

import base64
import hmac
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from standardwebhooks import Webhook

from chatserver.kernel.clock import rfc3339, utc_now
from tests.support.clients import CHAT
from tests.support.nodes import Cluster, Node, Process, eventually
from tests.support.receiver import Receiver
from tests.support.scene import Scene, on_stage
from tests.support.servers import Database, Servers, run
from tests.support.vendors import BASIC_SOURCE, Vendor

GUIDE = Path(__file__).parents[2] / "docs" / "inbound-webhooks.md"


@pytest.fixture(scope="module")
def inbound(servers: Servers) -> Iterator[Cluster]:
    """A node and a worker that may be killed, on a database of their own."""
    database = servers.fresh_database()
    cluster = Cluster(database, ALLOW_PRIVATE_ADDRESSES="true")
    try:
        run(_start(cluster))
        yield cluster
    finally:
        cluster.close()
        servers.drop(database)


async def _start(cluster: Cluster) -> None:
    await cluster.nodes("a")
    worker = Process("worker", ["chatserver", "worker"], cluster.environment, cluster.directory)
    cluster.processes.append(worker)
    worker.spawn()
    await eventually(lambda: worker.said("worker_ready"), within_s=60, why="the worker works")


@pytest.fixture
async def stage(inbound: Cluster) -> AsyncIterator[Scene]:
    nodes = [each for each in inbound.processes if isinstance(each, Node)]
    async with on_stage(nodes, inbound.database.secrets.operator_key) as made:
        yield made


def example(name: str, **values: str) -> dict[str, Any]:
    """Read a source from the guide."""
    found = re.search(rf"```json source={name}\n(.*?)\n```", GUIDE.read_text(), re.DOTALL)
    assert found is not None, name
    text = found.group(1)
    for place, value in values.items():
        text = text.replace(place, value)
    made: dict[str, Any] = orjson.loads(text)
    return made


async def source(stage: Scene, body: dict[str, Any]) -> tuple[dict[str, Any], Vendor]:
    made = (await stage.api.post("/webhooks/sources", body)).ok()
    vendor = Vendor(stage.api, stage.client["slug"], made["slug"])
    assert made["path"] == vendor.path
    return made, vendor


async def ended(
    stage: Scene, made: dict[str, Any], event_id: str, *, within_s: float = 30
) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        path = f"/webhooks/sources/{made['id']}/events/{event_id}"
        event: dict[str, Any] = (await stage.api.get(path)).ok()
        return event if event["status"] not in {"received", "running"} else None

    found: dict[str, Any] = await eventually(look, why="the rules ran", within_s=within_s)
    return found


async def said(stage: Scene, external_id: str) -> list[tuple[str | None, str]]:
    room = (await stage.api.get(f"/rooms/by-external/{external_id}")).ok()
    messages = (await stage.api.get(f"/rooms/{room['id']}/messages")).ok()["items"]
    return [(it["sender_id"], it["content"]) for it in messages]


async def test_e_commerce(stage: Scene) -> None:
    made, vendor = await source(stage, example("shop"))
    secret = "the app's client secret"
    order = {
        "id": 820982911946154500,
        "name": "#9999",
        "currency": "EUR",
        "total_price": "712.00",
        "customer": {"id": 115310627314723950, "first_name": "John"},
        "line_items": [{"sku": "IPOD-342-N"}, {"sku": "IPOD-342-S"}],
    }
    await stage.people("shop-team")
    team = await stage.device("shop-team")
    # The payment is told before the order itself: webhooks have no order.
    paid = await vendor.shopify(secret, "orders/paid", {"id": order["id"]}, name="p1")
    first = await vendor.shopify(secret, "orders/create", order, name="o1")
    again = await vendor.shopify(secret, "orders/create", order, name="o1")
    assert (first.status, again.status, again.body["duplicate"]) == (200, 200, True)
    assert (await ended(stage, made, first.body["id"]))["status"] == "done"
    assert (await ended(stage, made, paid.body["id"]))["status"] == "done"

    name = f"order-{order['id']}"
    room = (await stage.api.get(f"/rooms/by-external/{name}")).ok()
    assert (room["type"], room["title"], room["members_count"]) == ("support", "Order #9999", 2)
    assert room["metadata"]["skus"] == ["IPOD-342-N", "IPOD-342-S"]
    texts = [text for _, text in await said(stage, name)]
    assert sorted(texts) == [
        "A personal adviser looks after your order.",
        "Thank you, John! We got your order #9999 of 712.00 EUR.",
        "Your payment arrived. We pack your parcel now.",
    ]
    # Whoever is connected saw all of it live, each once.
    await eventually(lambda: len(team.of_type("message.created", CHAT)) == 3, why="seen live")
    refused = await vendor.shopify("another secret", "orders/create", order)
    assert (refused.status, refused.body["code"]) == (401, "webhook.refused")


async def test_helpdesk(stage: Scene) -> None:
    made, vendor = await source(stage, example("helpdesk"))

    async def zendesk(payload: dict[str, Any]) -> Any:
        body, at = orjson.dumps(payload), rfc3339(utc_now())
        mac = hmac.digest(b"the webhook's signing secret", at.encode() + body, "sha256")
        headers = {
            "Content-Type": "application/json",
            "X-Zendesk-Webhook-Signature": base64.b64encode(mac).decode(),
            "X-Zendesk-Webhook-Signature-Timestamp": at,
        }
        return await vendor.send(body, headers)

    ticket = {"id": "35436", "subject": "Printer on fire", "requester_id": 20978392}
    opened = await zendesk(
        {
            "id": "e1",
            "type": "zen:event-type:ticket.created",
            "detail": {**ticket, "description": "It burns. {{ $.secret }}"},
        }
    )
    assert (await ended(stage, made, opened.body["id"]))["status"] == "done"
    comment = {"body": "Use the extinguisher.", "is_public": True}
    answered = await zendesk(
        {
            "id": "e2",
            "type": "zen:event-type:ticket.comment_added",
            "detail": ticket,
            "event": {"comment": comment},
        }
    )
    hidden = await zendesk(
        {
            "id": "e3",
            "type": "zen:event-type:ticket.comment_added",
            "detail": ticket,
            "event": {"comment": {**comment, "is_public": False}},
        }
    )
    assert (await ended(stage, made, answered.body["id"]))["status"] == "done"
    assert (await ended(stage, made, hidden.body["id"]))["status"] == "ignored"
    assert await said(stage, "ticket-35436") == [
        ("20978392", "It burns. {{ $.secret }}"),
        ("agents", "Use the extinguisher."),
    ]


async def test_sign_up(stage: Scene) -> None:
    async with Receiver() as receiver:
        body = {"url": f"{receiver.url}/crm", "events": ["room.deleted"]}
        endpoint = await stage.api.post("/webhooks/endpoints", body)
        made, vendor = await source(stage, example("signup", ENDPOINT_ID=endpoint.ok()["id"]))
        user = {
            "type": "user.created",
            "data": {
                "id": "user_29w83sxmDNGwOuEthce5gg56FcC",
                "first_name": "Example",
                "email_addresses": [{"verified": True}],
            },
        }
        raw, now = orjson.dumps(user), utc_now()
        headers = {
            "Content-Type": "application/json",
            "svix-id": "msg_1",
            "svix-timestamp": str(int(now.timestamp())),
            "svix-signature": Webhook(made["secret"]).sign("msg_1", now, raw.decode()),
        }
        taken = await vendor.send(raw, headers)
        assert (await ended(stage, made, taken.ok()["id"]))["status"] == "done"
        name = user["data"]["id"]  # type: ignore[index]
        assert await said(stage, f"welcome-{name}") == [
            ("onboarding", "Hello Example, good to have you here. Ask us anything.")
        ]
        [heard] = await receiver.until("/crm", 1)
        event = heard.fact
        assert event["type"] == "signup.completed"
        assert event["data"]["user"] == name
        assert event["data"]["plan"] == "free"
        assert heard.headers["webhook-origin"] == "chatserver;hops=1"


SLOW = (
    """create function slow_note() returns trigger language plpgsql as $$
    begin
      if new.state = 'done' and old.state = 'planned'
          and new.action = any (string_to_array(current_setting('test.slow', true), ' ')) then
        perform pg_sleep(30);
      end if;
      return new;
    end $$""",
    """create trigger slow_note before update on inbound_effect
    for each row execute function slow_note()""",
)


async def _statements(database: Database, *statements: str) -> None:
    connection = await asyncpg.connect(database.admin_url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.timeout(120)
async def test_a_worker_dies_between_an_action_and_its_note(inbound: Cluster, stage: Scene) -> None:
    [worker] = [each for each in inbound.processes if each.name == "worker"]
    database = inbound.database
    create = {"type": "create_room", "external_id": "r-{{ $.n }}"}
    post = {"type": "post_message", "room_external_id": "r-{{ $.n }}", "content": "{{ $.n }}"}
    made, vendor = await source(
        stage,
        {
            "slug": "dying",
            **BASIC_SOURCE,
            "rules": [{"name": "r", "actions": [create, post, post]}],
        },
    )
    await _statements(
        database,
        *SLOW,
        f"alter database {database.name} set test.slow = 'post_message'",
        # The worker's sessions take a setting of the database when they begin.
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'chatserver worker'",
    )
    try:
        events = [(await vendor.basic({"n": n})).ok()["id"] for n in range(3)]
        await eventually(lambda: _sleeping(database), why="a note is being written")
        worker.kill()
        assert await _count(database, stage, "message") >= 1
        assert await _count(database, stage, "inbound_effect", "state = 'planned'") >= 1
    finally:
        await _statements(
            database,
            # What the dead worker was doing in here ends now, and not at its time limit.
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'chatserver worker'",
            "drop trigger slow_note on inbound_effect",
            "drop function slow_note",
            f"alter database {database.name} reset test.slow",
            # As the sweeper does once the lease has ended.
            "update job set state = 'queued', lease_until = null where state = 'running'",
        )
        _respawn(worker)
    for event_id in events:
        # A worker that begins on a busy machine takes its time.
        event = await ended(stage, made, event_id, within_s=90)
        assert (event["status"], [it["state"] for it in event["effects"]]) == ("done", ["done"] * 3)
    for n in range(3):
        assert [text for _, text in await said(stage, f"r-{n}")] == [str(n)] * 2
    assert await _count(database, stage, "room") == 3
    assert await _count(database, stage, "message") == 6


@pytest.mark.timeout(120)
async def test_a_worker_dies_within_the_transactions_of_the_others(
    inbound: Cluster, stage: Scene
) -> None:
    [worker] = [each for each in inbound.processes if each.name == "worker"]
    database = inbound.database
    await stage.people("ann")
    bot = (await stage.api.post("/bots", {"name": "Helper"})).ok()["id"]
    async with Receiver() as receiver:
        body = {"url": f"{receiver.url}/on", "events": ["room.deleted"]}
        endpoint = (await stage.api.post("/webhooks/endpoints", body)).ok()["id"]
        room = {"type": "group", "external_id": "desk", "member_ids": ["ann"]}
        (await stage.api.post("/rooms", room)).ok()
        tell = {"recipients": [{"user_id": "ann"}], "channels": {"socket": {"title": "Hello"}}}
        ask = {"room_external_id": "desk", "sender_id": "ann", "content": "?", "bot_id": bot}
        actions = {
            "notify": {"notification": tell},
            "forward": {"endpoint_id": endpoint, "event_type": "order.created"},
            "ask_assistant": ask,
        }
        rules = [
            {
                "name": name.replace("_", "-"),
                "match": [{"path": "$.do", "value": name}],
                "actions": [{"type": name, **members}],
            }
            for name, members in actions.items()
        ]
        made, vendor = await source(stage, {"slug": "dying", **BASIC_SOURCE, "rules": rules})
        await _statements(
            database,
            *SLOW,
            f"alter database {database.name} set test.slow = '{' '.join(actions)}'",
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'chatserver worker'",
        )
        try:
            events = [(await vendor.basic({"do": name})).ok()["id"] for name in actions]
            await eventually(lambda: _sleeping(database, 3), why="all three are being done")
            worker.kill()
        finally:
            await _statements(
                database,
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'chatserver worker'",
                "drop trigger slow_note on inbound_effect",
                "drop function slow_note",
                f"alter database {database.name} reset test.slow",
            )
            # Nothing of it was committed.
            for table in ("notification", "webhook_event", "message"):
                assert await _count(database, stage, table) == 0
            await _statements(
                database,
                "update job set state = 'queued', lease_until = null where state = 'running'",
            )
            _respawn(worker)
        for event_id in events:
            event = await ended(stage, made, event_id, within_s=90)
            assert event["status"] == "done"
        [heard] = await receiver.until("/on", 1)
        assert heard.fact["type"] == "order.created"
    assert await _count(database, stage, "notification") == 1
    assert await _count(database, stage, "webhook_event") == 1
    assert await _count(database, stage, "message", "sender = 'user'") == 1
    assert await _count(database, stage, "message", "sender = 'ai'") == 1


def _respawn(worker: Process) -> None:
    if not worker.is_running:
        worker.spawn()


async def _sleeping(database: Database, several: int = 1) -> bool:
    connection = await asyncpg.connect(database.admin_url)
    try:
        return bool(
            await connection.fetchval(
                "select count(*) >= $1 from pg_stat_activity where wait_event = 'PgSleep'"
                " and datname = current_database()",
                several,
            )
        )
    finally:
        await connection.close()


async def _count(database: Database, stage: Scene, table: str, where: str = "true") -> int:
    connection = await asyncpg.connect(database.admin_url)
    try:
        return int(
            await connection.fetchval(
                f"select count(*) from {table} where client_id = $1 and {where}",
                stage.client["id"],
            )
        )
    finally:
        await connection.close()
