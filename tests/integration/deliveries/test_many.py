"""Many deliveries at once: lists, figures, exports; cancelling and replaying by a filter."""

import csv
import io
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatserver.deliveries.errors import DeliveryNotReplayableError
from chatserver.deliveries.models import Target
from chatserver.deliveries.schemas import (
    CancelDeliveries,
    DeliveryRef,
    ExportDeliveries,
    GetAnalytics,
    ListAllDeliveries,
    ReplayDeliveries,
)
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import NOBODY, Principal
from tests.support.talk import Talk
from tests.support.talking import master, talk

__all__ = ["master", "talk"]

STATES = (
    *(["accepted"] * 3), "bounced", "failed", "expired", "queued", "retry_wait", "suppressed",
)  # fmt: skip


async def keep(talk: Talk, who: Principal, states: tuple[str, ...] = STATES) -> UUID:
    """A provider with deliveries in these states, each tried once in 40 ms; the suppressed one
    has nowhere to go."""
    target = Target(id=uuid7(), client_id=who.client_id, channel="email", is_proven=True)
    notification_id = uuid7()
    async with talk.container.open(lambda work: work)() as work:
        talk.container.webhooks.targets(work).add(target)
    now = await talk.rows("select clock_timestamp() as at")
    expires_at: datetime = now[0]["at"] + timedelta(days=1)
    async with talk.container.webhooks.open_deliveries() as deliveries:
        await deliveries.keep(
            [
                {
                    "id": uuid7(),
                    "client_id": who.client_id,
                    "channel": "email",
                    "target_id": NOBODY if state == "suppressed" else target.id,
                    "source_id": notification_id,
                    "priority": 1,
                    "state": state,
                    "reason": "no_address" if state == "suppressed" else None,
                    "next_at": expires_at,
                    "expires_at": expires_at,
                    "is_settled": state not in ("queued", "retry_wait"),
                }
                for state in states
            ]
        )
    await talk.run(
        "update delivery set tries = 1 where client_id = $1 and state <> 'suppressed'",
        who.client_id,
    )
    await talk.run(
        "insert into delivery_attempt (delivery_id, generation, no, client_id, target_id, trigger,"
        " latency_ms, outcome) select id, 1, 1, client_id, target_id, 'auto', 40,"
        " case when state = 'accepted' then 'accepted' else 'retryable' end"
        " from delivery where client_id = $1 and tries > 0",
        who.client_id,
    )
    return target.id


async def states(talk: Talk, who: Principal) -> Counter[str]:
    rows = await talk.rows("select state from delivery where client_id = $1", who.client_id)
    return Counter(row["state"] for row in rows)


async def test_a_list_goes_on_by_cursor_and_takes_filters(talk: Talk, master: Principal) -> None:
    provider_id = await keep(talk, master)
    other = await talk.client("other")
    await keep(talk, other)

    async def page(**members: Any) -> Any:
        async with talk.container.sending.open_many() as many:
            return await many.page(master, ListAllDeliveries.model_validate(members))

    first = await page(limit=5)
    second = await page(limit=5, cursor=first.next_cursor)
    assert [len(first.items), len(second.items), second.next_cursor] == [5, 4, None]
    ids = [it.id for it in (*first.items, *second.items)]
    assert ids == sorted(set(ids), reverse=True)
    assert [it.state for it in (await page(state="failed")).items] == ["failed"]
    assert len((await page(provider_id=str(provider_id))).items) == 8
    assert (await page(channel="sms")).items == []
    assert (await page(to="2020-01-01T00:00:00Z")).items == []
    assert [it.state for it in (await page(reason="no_address")).items] == ["suppressed"]


async def test_figures_by_day_channel_and_provider(talk: Talk, master: Principal) -> None:
    provider_id = await keep(talk, master)
    async with talk.container.sending.open_many() as many:
        found = await many.analytics(master, GetAnalytics())
        assert (await many.analytics(master, GetAnalytics(channel="sms"))).items == []
        for days in (
            {"from": "2026-02-01", "to": "2026-01-01"},
            {"from": "2026-01-01", "to": "2026-03-01"},
        ):
            with pytest.raises(PayloadInvalidError):
                await many.analytics(master, GetAnalytics.model_validate(days))
    line, nowhere = sorted(found.items, key=lambda it: it.provider_id != provider_id)
    assert (line.channel, line.count, line.in_flight, line.tries) == ("email", 8, 2, 8)
    assert line.states == {
        "accepted": 3, "bounced": 1, "failed": 1, "expired": 1, "queued": 1, "retry_wait": 1,
    }  # fmt: skip
    assert (line.success_rate, line.failure_rate, line.try_success_rate) == (0.5, 0.5, 0.375)
    assert line.try_ms is not None
    assert (line.try_ms.p50, line.try_ms.p99) == (40, 40)
    assert line.settle_ms is not None
    assert nowhere.states == {"suppressed": 1}
    assert (nowhere.settle_ms, nowhere.try_ms, nowhere.success_rate) == (None, None, 0.0)


async def test_replaying_by_filter_sends_what_was_lost_once(talk: Talk, master: Principal) -> None:
    await keep(talk, master)
    async with talk.container.sending.open_many() as many:
        done = await many.replay(master, ReplayDeliveries())
    assert (done.count, done.more) == (3, False)
    assert await states(talk, master) == {
        "accepted": 3, "queued": 4, "retry_wait": 1, "suppressed": 1,
    }  # fmt: skip
    # They fail again: what settled after the first call is not meant by the second.
    await talk.run(
        "update delivery set state = 'failed', settled_at = clock_timestamp()"
        " where client_id = $1 and generation = 2",
        master.client_id,
    )
    async with talk.container.sending.open_many() as many:
        again = await many.replay(master, ReplayDeliveries(before=done.before))
        nowhere = await many.replay(master, ReplayDeliveries(state="suppressed"))
    assert (again.count, nowhere.count) == (0, 0)
    [suppressed] = await talk.rows(
        "select id from delivery where client_id = $1 and state = 'suppressed'", master.client_id
    )
    with pytest.raises(DeliveryNotReplayableError):
        async with talk.container.webhooks.open_deliveries() as deliveries:
            await deliveries.replay(master, DeliveryRef(id=suppressed["id"]))


async def test_cancelling_by_filter_ends_what_waits(talk: Talk, master: Principal) -> None:
    await keep(talk, master)
    other = await talk.client("other")
    await keep(talk, other)
    async with talk.container.sending.open_many() as many:
        first = await many.cancel(master, CancelDeliveries(state="retry_wait"))
        rest = await many.cancel(master, CancelDeliveries())
    assert (first.count, rest.count, rest.more) == (1, 1, False)
    assert (await states(talk, master))["cancelled"] == 2
    assert (await states(talk, other))["cancelled"] == 0
    noted = await talk.rows(
        "select action from audit where client_id = $1 order by id", master.client_id
    )
    assert [row["action"] for row in noted] == ["delivery.cancel_many"] * 2


async def test_exports_are_lines_or_a_table(talk: Talk, master: Principal) -> None:
    await keep(talk, master)
    exporter = talk.container.sending.exporter

    async def whole(**members: Any) -> bytes:
        given = await exporter.export(master, ExportDeliveries.model_validate(members))
        return b"".join([part async for part in given])

    lines = [orjson.loads(line) for line in (await whole()).splitlines()]
    assert sorted(line["state"] for line in lines) == sorted(STATES)
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
    assert lines[0]["provider_id"] is not None
    rows = list(csv.DictReader(io.StringIO((await whole(format="csv")).decode())))
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    assert list(rows[0]) == list(lines[0])
    assert len((await whole(state="accepted")).splitlines()) == 3
