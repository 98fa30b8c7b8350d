"""Faults: workers that are killed, providers that fail for all, and whatever chance brings.

`DELIVERIES=10000` makes them large; `SEED` repeats what went wrong.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatserver.deliveries.schemas import GetLedger
from chatserver.kernel.principal import Principal
from chatserver.notifications.devices.schemas import DevicePut
from chatserver.providers.schemas import CreateProvider
from tests.support.mail_server import Behaviour, mail_server
from tests.support.mailgun_server import mailgun_server
from tests.support.nodes import START_S, Process, eventually
from tests.support.notifying import MAIL, near, send, settled, smtp, working
from tests.support.push_service import push_service
from tests.support.servers import Database
from tests.support.talk import Talk
from tests.support.talking import master

__all__ = ["master", "near"]

COUNT = int(os.environ.get("DELIVERIES", "120"))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
WAITING = "('scheduled', 'queued', 'sending', 'retry_wait')"


@pytest.fixture
async def talk(near: Talk) -> Talk:
    return near


@pytest.fixture
def killable(database: Database, tmp_path: Path) -> Iterator[Process]:
    """A worker that is yet to be started."""
    environment = {**database.environment(), "ALLOW_PRIVATE_ADDRESSES": "true"}
    process = Process("worker", ["chatserver", "worker"], environment, tmp_path)
    yield process
    process.reap()


async def is_balanced(talk: Talk, master: Principal) -> dict[str, Counter[str]]:
    """Give each channel's states: the sum is what was promised, and nothing is under way."""
    async with talk.container.webhooks.open_deliveries() as opened:
        ledger = await opened.ledger(master, GetLedger.model_validate({}))
    assert ledger.balanced, f"seed {SEED}: {ledger}"
    assert sum(line.in_flight for line in ledger.channels) == 0
    return {line.channel: Counter(line.states) for line in ledger.channels}


async def hurry(talk: Talk) -> bool:
    """Let time pass for whoever waits for it; True: nobody does any more."""
    await talk.run("update delivery_target set open_until = now() where open_until is not null")
    await talk.run("update delivery set next_at = now() where state = 'retry_wait'")
    for lane in talk.container.sending.senders.values():
        rests = getattr(lane, "_rests", None)
        if rests is not None:
            rests._origins.clear()
    rows = await talk.rows(f"select 1 from delivery where state in {WAITING} limit 1")
    await asyncio.sleep(0.05)
    return not rows


async def test_a_worker_that_is_killed_after_data_repeats_a_mail_once_and_an_offer_never(
    talk: Talk, master: Principal, killable: Process
) -> None:
    async with mail_server() as server:
        await smtp(talk, master, server)
        await talk.run("update delivery_target set is_proven = true")
        server.behaviour.fault = "hang"
        order = await send(talk, master)
        offer = await send(talk, master, priority="bulk", recipients=[{"email": "o@example.net"}])
        killable.spawn()
        await eventually(
            lambda: len(server.taken) == 2, within_s=START_S, why="both were handed over"
        )
        killable.kill()
        server.behaviour.fault = None
        await talk.run("update delivery set lease_until = now() where state = 'sending'")
        async with working(talk):

            async def wait() -> list[dict[str, Any]]:
                found = await talk.rows(
                    "select extract(epoch from next_at - now()) as left_s from delivery"
                    " where state = 'retry_wait' and reason = 'unknown_outcome'"
                )
                return found if len(found) == 2 else []

            rows = await eventually(wait, why="both wait: a provider may be asked by then")
            assert all(100 < row["left_s"] <= 120 for row in rows)
            await hurry(talk)
            [done] = await settled(talk, master, offer.id)
            assert (done.state, done.reason) == ("failed", "unknown_outcome")
            [done] = await settled(talk, master, order.id)
            assert (done.state, done.tries) == ("accepted", 2)
    ids = Counter(mail["Message-ID"] for mail in server.mails())
    assert sorted(ids.values()) == [1, 2]
    tried = await talk.rows("select outcome, error from delivery_attempt order by no, delivery_id")
    assert [(row["outcome"], row["error"]) for row in tried] == [
        *[("unknown", "interrupted")] * 2,
        ("accepted", None),
        ("rejected", "unknown_outcome"),
    ]
    assert await is_balanced(talk, master) == {
        "email": Counter({"accepted": 1, "failed": 1} | dict.fromkeys(_REST, 0))
    }


_REST = ("delivered", "bounced", "suppressed", "expired", "cancelled")


async def test_a_provider_that_fails_for_all_is_stood_in_for_before_the_deadline(
    talk: Talk, master: Principal
) -> None:
    async with mailgun_server() as broken, mail_server() as sound:
        broken.answer = (503, {"message": "not now"})
        config = {
            "domain": "mg.example.org",
            "api_key": "key-right",
            "base_url": broken.url,
            "from": "shop@example.org",
        }
        await talk.container.providers.checks.create(
            master,
            CreateProvider.model_validate(
                {"channel": "email", "kind": "mailgun", "name": "a", "config": config}
            ),
        )
        await smtp(talk, master, sound, position=1)
        async with working(talk):
            sent = [
                await send(
                    talk,
                    master,
                    priority="critical",
                    recipients=[
                        {"email": f"b{n}@example.net"}
                        for n in range(start, min(COUNT, start + 1000))
                    ],
                )
                for start in range(0, COUNT, 1000)
            ]

            async def all_ended() -> bool:
                return not await talk.rows(
                    f"select 1 from delivery where state in {WAITING} limit 1"
                )

            # Nobody turns the clock: its deadline is ten minutes.
            await eventually(all_ended, within_s=50 + COUNT / 50, why="all went by the other")
    assert len(sent) == -(-COUNT // 1000)
    states = await is_balanced(talk, master)
    assert states["email"]["accepted"] == COUNT
    assert len({mail["To"] for mail in sound.mails()}) == len(sound.taken) == COUNT


async def test_whatever_chance_brings_the_ledger_balances(talk: Talk, master: Principal) -> None:
    chance = random.Random(SEED)
    took: Counter[str] = Counter()

    def mood() -> Behaviour:
        return chance.choice(
            [
                *[Behaviour()] * 6,
                Behaviour(mail="451 4.3.0 not now"),
                Behaviour(mail="421 4.7.0 too much"),
                Behaviour(recipient="550 5.1.1 no such user"),
                Behaviour(recipient="450 4.7.1 greylisted"),
                Behaviour(content="554 5.7.1 spam"),
                Behaviour(fault="drop"),
            ]
        )

    async def receive(request: web.Request) -> web.Response:
        status = chance.choice([200, 200, 200, 500, 503, 429, 404, 410, 400])
        if status == 200:
            took[request.headers["webhook-id"]] += 1
        return web.Response(status=status)

    people = [f"p{n}" for n in range(COUNT // 4)]
    users = await talk.users(master, *people)
    app = web.Application()
    app.router.add_post("/hook/{name}", receive)
    async with (
        mail_server() as first,
        mail_server() as second,
        push_service() as service,
        TestServer(app) as hooks,
    ):
        first.mood = second.mood = mood
        await smtp(talk, master, first, position=0)
        await smtp(talk, master, second, position=1)
        service.public_key = await talk.container.notifications.push_keys.public_key()
        for user in users[::2]:
            browser = service.browser(user.external_id)
            service.answers[browser.name] = chance.choice([201, 201, 410, 429, 500, 413])
            command = DevicePut.model_validate(
                {"kind": "web_push", "subscription": browser.subscription}
            )
            async with talk.container.notifications.open_devices() as devices:
                await devices.put(user, command)
        asked = [
            {
                "user_id": name,
                "email": f"{name}@example.net",
                "url": str(hooks.make_url(f"/hook/{name}")),
            }
            for name in people
        ]
        async with working(talk):
            for start in range(0, len(asked), 1000):
                await send(
                    talk,
                    master,
                    recipients=asked[start : start + 1000],
                    channels={
                        "socket": {"title": "Hi"},
                        "email": MAIL,
                        "webhook": {"data": {}},
                        "push": {"title": "Hi"},
                    },
                )
            await eventually(
                lambda: hurry(talk), within_s=50 + COUNT / 20, why=f"all end (seed {SEED})"
            )
        mails = Counter(mail["Message-ID"] for server in (first, second) for mail in server.mails())
    states = await is_balanced(talk, master)
    assert sum(sum(line.values()) for line in states.values()) == 4 * len(people)
    assert states["socket"]["accepted"] == len(people)
    assert set(took.values()) <= {1}, f"seed {SEED}"
    assert len(took) == states["forward"]["delivered"]
    shown = await talk.rows("select delivery_id, count(*) as n from in_app_notification group by 1")
    assert {row["n"] for row in shown} == {1}
    unknown = {
        f"<{row['delivery_id']}@example.org>": row["n"]
        for row in await talk.rows(
            "select delivery_id, count(*) as n from delivery_attempt"
            " where outcome = 'unknown' group by 1"
        )
    }
    lines = "\n".join(f"{name:>8}: {dict(+line)}" for name, line in sorted(states.items()))
    print(f"\nseed {SEED}, {4 * len(people)} deliveries, unknown {len(unknown)}\n{lines}")
    for message_id, times in mails.items():
        assert times <= 1 + unknown.get(message_id, 0), f"seed {SEED}"
