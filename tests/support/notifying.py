"""Notifications in tests: a process that may reach this machine, its lanes, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from chatserver.kernel.principal import Principal
from chatserver.notifications.requests.schemas import (
    ListNotificationDeliveries,
    NotificationDeliveryOut,
    SendNotification,
    SentNotification,
)
from chatserver.providers.schemas import CreateProvider
from tests.support.mail_server import MailServer
from tests.support.mailgun_server import MailgunServer
from tests.support.nodes import eventually
from tests.support.servers import Database
from tests.support.talk import Talk
from workers.notifications import NotificationLanes

SIGNING_KEY = "signing-key"
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


async def mailgun(talk: Talk, who: Principal, server: MailgunServer, **members: Any) -> UUID:
    config = {
        "domain": "mg.example.org",
        "api_key": "key-right",
        "signing_key": SIGNING_KEY,
        "base_url": server.url,
        "from": "shop@example.org",
    }
    command = CreateProvider.model_validate(
        {"channel": "email", "kind": "mailgun", "name": "m", "config": config | members}
    )
    return (await talk.container.providers.checks.create(who, command)).id


async def hasten(talk: Talk) -> None:
    """Let the time of whatever waits for its next try come."""
    await talk.run("update delivery set next_at = clock_timestamp() where state = 'retry_wait'")


async def waiting(talk: Talk, who: Principal, notification_id: UUID) -> NotificationDeliveryOut:
    """Wait until a notification's one delivery waits for its next try."""

    async def waits() -> NotificationDeliveryOut | None:
        [found] = await deliveries(talk, who, notification_id)
        return found if found.state == "retry_wait" else None

    found: NotificationDeliveryOut = await eventually(waits, why="it waits for its next try")
    return found
