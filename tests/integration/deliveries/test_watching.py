"""Whether the ledger balances, and who is told of what was lost."""

from datetime import timedelta
from typing import Any

import orjson

from chatserver.deliveries.schemas import GetLedger
from chatserver.kernel.principal import Principal
from chatserver.notifications.requests.schemas import SendNotification
from tests.integration.deliveries.test_many import keep
from tests.support.talk import Talk
from tests.support.talking import master, talk
from workers.watching import DeliveryWatch
from workers.webhooks import WebhookJobs, first_id

__all__ = ["master", "talk"]


def watch(talk: Talk) -> DeliveryWatch:
    container = talk.container
    return DeliveryWatch(container.database, container.webhooks.open_failures)


async def told(talk: Talk) -> list[dict[str, Any]]:
    rows = await talk.rows("select data from outbox where type = 'delivery.failed' order by id")
    return [orjson.loads(row["data"]) for row in rows]


async def test_a_row_that_is_missing_or_was_never_promised_breaks_the_balance(
    talk: Talk, master: Principal
) -> None:
    await keep(talk, master)
    watching = watch(talk)
    assert await watching.balance() == 0
    await talk.run(
        "delete from delivery where id = (select id from delivery where state = 'failed')"
    )
    assert await watching.balance() == 1
    ledger = await _ledger(talk, master)
    assert not ledger.balanced
    await talk.run("update delivery_day set promised = promised - 1")
    assert await watching.balance() == 0
    assert (await _ledger(talk, master)).balanced


async def _ledger(talk: Talk, who: Principal) -> Any:
    async with talk.container.webhooks.open_deliveries() as deliveries:
        return await deliveries.ledger(who, GetLedger())


async def test_what_was_lost_is_told_once_to_whoever_follows_it(
    talk: Talk, master: Principal
) -> None:
    other = await talk.client("other")
    await talk.run(
        "update client set followed = '{delivery.failed}' where id = $1", master.client_id
    )

    async def tell(**more: float) -> int:
        async with talk.container.webhooks.open_failures() as failures:
            assert await failures.following() == [master.client_id]
            return await failures.tell(master.client_id, **({"lag_s": 0.0} | more))

    assert await tell() == 0
    provider_id = await keep(talk, master)
    await keep(talk, other)
    # Not at once again: what comes within ten minutes goes into one fact.
    assert await tell() == 0
    assert await tell(every_s=0) == 3
    assert await tell(every_s=0) == 0
    [data] = await told(talk)
    assert data["count"] == 3
    assert {(it["channel"], it["state"], it["count"]) for it in data["items"]} == {
        ("email", "failed", 1), ("email", "bounced", 1), ("email", "expired", 1),
    }  # fmt: skip
    assert {it["provider_id"] for it in data["items"]} == {str(provider_id)}


async def test_that_a_webhook_was_lost_is_not_told_by_webhook(
    talk: Talk, master: Principal
) -> None:
    await talk.run("update client set followed = '{delivery.failed}'")
    async with talk.container.webhooks.open_failures() as failures:
        await failures.tell(master.client_id)
    await keep(talk, master)
    await talk.run("update delivery set channel = 'webhook'")
    async with talk.container.webhooks.open_failures() as failures:
        assert await failures.tell(master.client_id, every_s=0, lag_s=0) == 0
    assert await told(talk) == []


async def test_whom_a_delivery_was_for_is_forgotten_with_it(talk: Talk, master: Principal) -> None:
    await talk.users(master, "ann", "bob")
    async with talk.container.sending.open_notifications() as notifications:
        for name in ("ann", "bob"):
            await notifications.send(
                master,
                SendNotification.model_validate(
                    {"recipients": [{"user_id": name}], "channels": {"socket": {"title": "x"}}}
                ),
            )
    old = first_id((await talk.rows("select now() as at"))[0]["at"] - timedelta(days=40))
    # The one for Ann is 40 days old by its ids, as everything of it.
    [row] = await talk.rows("select * from notification_delivery where person = 'ann'")
    await talk.run("delete from notification_content")
    await talk.run(
        "with n as (insert into notification (id, client_id, priority, details, expires_at)"
        "   select $1, client_id, priority, details, expires_at from notification where id = $2),"
        " d as (update delivery set id = $1, settled_at = settled_at - interval '40 days'"
        "   where id = $3)"
        " select 1",
        old,
        row["notification_id"],
        row["delivery_id"],
    )
    await talk.run(
        "update notification_delivery set delivery_id = $1, notification_id = $1"
        " where delivery_id = $2",
        old,
        row["delivery_id"],
    )
    jobs = WebhookJobs(talk.container.webhooks.open_replays, talk.container.database)
    await jobs.trim_all()
    left = await talk.rows("select person from notification_delivery")
    assert [it["person"] for it in left] == ["bob"]
    assert old not in {it["id"] for it in await talk.rows("select id from notification")}
