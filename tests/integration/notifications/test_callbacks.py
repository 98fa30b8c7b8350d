"""What Mailgun tells of mails that it took: signed, counted once, and never believed blindly."""

import hmac
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatserver.kernel.errors import DomainError, UnavailableError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.notifications.callbacks.door import CallbackDoor
from chatserver.notifications.callbacks.errors import CallbackHopelessError, CallbackRefusedError
from chatserver.notifications.callbacks.service import Told
from chatserver.transport.answers import answers
from tests.support.mail_server import mail_server
from tests.support.mailgun_server import MailgunServer, mailgun_server
from tests.support.notifying import (
    SIGNING_KEY,
    mailgun,
    near,
    send,
    settled,
    smtp,
    working,
)
from tests.support.talk import Talk
from tests.support.talking import master

__all__ = ["master", "near"]


@pytest.fixture
async def talk(near: Talk) -> Talk:
    return near


@pytest.fixture
async def server() -> AsyncIterator[MailgunServer]:
    async with mailgun_server() as made:
        yield made


def block(*, key: str = SIGNING_KEY, age_s: float = 0.0) -> dict[str, str]:
    stamp, token = str(int(time.time() - age_s)), secrets.token_hex(25)
    mac = hmac.new(key.encode(), f"{stamp}{token}".encode(), "sha256").hexdigest()
    return {"timestamp": stamp, "token": token, "signature": mac}


def event(delivery_id: UUID | None, kind: str, **members: Any) -> dict[str, Any]:
    return {
        "event": kind,
        "id": secrets.token_hex(8),
        "timestamp": time.time(),
        "recipient": "bob@example.net",
        "user-variables": {} if delivery_id is None else {"delivery_id": str(delivery_id)},
    } | members


HARD = {
    "severity": "permanent",
    "reason": "bounce",
    "delivery-status": {"code": 550, "message": "5.1.1 no such user <bob@example.net>"},
}
FULL = {
    "severity": "permanent",
    "reason": "old",
    "delivery-status": {"code": 452, "message": "4.2.2 mailbox full"},
}


async def tell(talk: Talk, provider_id: UUID, data: Any, **signing: Any) -> Told:
    body = {"signature": block(**signing), "event-data": data}
    return await take(talk, provider_id, body)


async def take(talk: Talk, provider_id: UUID, body: Any) -> Told:
    async with talk.container.sending.open_callbacks() as callbacks:
        return await callbacks.take(provider_id, body)


async def handed_over(talk: Talk, master: Principal, **members: Any) -> UUID:
    async with working(talk):
        sent = await send(talk, master, **members)
        [done] = await settled(talk, master, sent.id)
    assert done.state == "accepted"
    delivery_id: UUID = done.id
    return delivery_id


async def state_of(talk: Talk, delivery_id: UUID) -> tuple[str, str | None]:
    [row] = await talk.rows("select state, reason from delivery where id = $1", delivery_id)
    return row["state"], row["reason"]


async def test_late_events_win_by_their_rank_and_each_counts_once(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    provider_id = await mailgun(talk, master, server)
    delivery_id = await handed_over(talk, master)
    delivered = event(delivery_id, "delivered")
    assert await tell(talk, provider_id, delivered) == Told(delivery_id)
    assert await state_of(talk, delivery_id) == ("delivered", None)
    assert (await tell(talk, provider_id, delivered)).duplicate
    for kind in ("opened", "clicked", "accepted"):
        await tell(talk, provider_id, event(delivery_id, kind))
    await tell(talk, provider_id, event(delivery_id, "failed", severity="temporary"))
    assert await state_of(talk, delivery_id) == ("delivered", None)
    told = await tell(talk, provider_id, event(delivery_id, "failed", **HARD))
    assert told.is_lost
    assert await state_of(talk, delivery_id) == ("bounced", "bounced_5.1.1")
    await tell(talk, provider_id, event(delivery_id, "delivered"))
    assert await state_of(talk, delivery_id) == ("bounced", "bounced_5.1.1")
    kept = await talk.rows("select kind from delivery_event order by id")
    assert [row["kind"] for row in kept] == [
        *("delivered", "opened", "clicked", "deferred", "bounced", "delivered"),
    ]
    assert "bob" not in f"{await talk.rows('select * from delivery_event')}"


async def test_nothing_ranks_above_a_complaint(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    provider_id = await mailgun(talk, master, server)
    delivery_id = await handed_over(talk, master)
    await tell(talk, provider_id, event(delivery_id, "complained"))
    for kind, members in (("delivered", {}), ("failed", HARD)):
        await tell(talk, provider_id, event(delivery_id, kind, **members))
        assert await state_of(talk, delivery_id) == ("delivered", "complained")


@pytest.mark.parametrize(
    ("kind", "members", "refused"),
    [
        ("failed", HARD, ("suppressed", "hard_bounce")),
        ("failed", FULL, ("queued", None)),
        ("complained", {}, ("suppressed", "complaint")),
        ("unsubscribed", {}, ("suppressed", "unsubscribe")),
    ],
)
async def test_an_address_that_wants_or_takes_nothing_gets_nothing_more(
    talk: Talk,
    master: Principal,
    server: MailgunServer,
    kind: str,
    members: dict[str, Any],
    refused: tuple[str, str | None],
) -> None:
    provider_id = await mailgun(talk, master, server)
    delivery_id = await handed_over(talk, master, category="offers")
    await tell(talk, provider_id, event(delivery_id, kind, **members))
    again = await send(talk, master, category="offers")
    assert [(it.state, it.reason) for it in again.deliveries] == [refused]
    if kind == "unsubscribed":
        other = await send(talk, master, category="orders")
        assert [it.state for it in other.deliveries] == ["queued"]


async def test_a_mail_that_may_have_arrived_and_has_is_not_repeated(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    provider_id = await mailgun(talk, master, server)
    delivery_id = await handed_over(talk, master)
    await talk.run(
        "update delivery set state = 'retry_wait', reason = 'unknown_outcome', settled_at = null"
    )
    await tell(talk, provider_id, event(delivery_id, "delivered"))
    assert await state_of(talk, delivery_id) == ("delivered", None)


async def test_while_it_is_handed_over_the_event_is_to_come_again(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    provider_id = await mailgun(talk, master, server)
    delivery_id = await handed_over(talk, master)
    await talk.run("update delivery set state = 'sending'")
    data = event(delivery_id, "delivered")
    with pytest.raises(UnavailableError):
        await tell(talk, provider_id, data)
    await talk.run("update delivery set state = 'accepted'")
    assert not (await tell(talk, provider_id, data)).duplicate


async def test_seven_hours_later_it_still_counts_and_only_once(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    provider_id = await mailgun(talk, master, server)
    delivery_id = await handed_over(talk, master)
    body = {"signature": block(age_s=7 * 3600), "event-data": event(delivery_id, "delivered")}
    assert not (await take(talk, provider_id, body)).duplicate
    assert (await take(talk, provider_id, body)).duplicate
    # The same signature with another content: only the token is signed.
    forged = body | {"event-data": event(delivery_id, "complained")}
    with pytest.raises(CallbackHopelessError):
        await take(talk, provider_id, forged)
    assert await state_of(talk, delivery_id) == ("delivered", None)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"signature": "x", "event-data": {}},
        {"signature": {"timestamp": "1", "token": "t", "signature": ""}},
        {"signature": {"timestamp": 1, "token": ["t"], "signature": None}},
        {"signature": block(key="another")},
        {"signature": block(age_s=11 * 3600)},
        {"signature": block(age_s=-3600)},
    ],
)
async def test_what_is_not_signed_is_refused_and_later_for_good(
    talk: Talk, master: Principal, server: MailgunServer, body: Any
) -> None:
    provider_id = await mailgun(talk, master, server)
    with pytest.raises(CallbackRefusedError):
        await take(talk, provider_id, body)
    await talk.run(
        "insert into delivery_event (id, client_id, delivery_id, provider_id, provider_event_id,"
        " kind, occurred_at) values ($1, $1, $1, $2, 'x', 'opened', now())",
        uuid7(),
        provider_id,
    )
    with pytest.raises(CallbackHopelessError):
        await take(talk, provider_id, body)


async def test_unknown_providers_and_those_that_tell_nothing_answer_alike(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    silent = await mailgun(talk, master, server, signing_key=None)
    async with mail_server() as mails:
        other = await smtp(talk, master, mails)
    refusals: list[DomainError] = []
    for provider_id in (uuid7(), silent, other):
        with pytest.raises(CallbackRefusedError) as refused:
            await tell(talk, provider_id, event(uuid7(), "delivered"))
        refusals.append(refused.value)
    assert len({str(each) for each in refusals}) == 1


async def test_the_door_answers_as_mailgun_understands(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    provider_id = await mailgun(talk, master, server)
    delivery_id = await handed_over(talk, master)
    app = web.Application(middlewares=[answers()])
    CallbackDoor(talk.container.sending.open_callbacks, talk.container.sending.lost).attach(app)
    good = {"signature": block(), "event-data": event(delivery_id, "failed", **HARD)}
    bad = good | {"signature": block(key="another")}
    async with TestServer(app) as door, aiohttp.ClientSession() as http:
        seen = []
        for path, body in (
            (provider_id, orjson.dumps(bad)),
            (provider_id, b"{"),
            ("no-id", orjson.dumps(good)),
            (provider_id, orjson.dumps(good)),
            (provider_id, orjson.dumps(good)),
            (provider_id, orjson.dumps(bad)),
        ):
            async with http.post(door.make_url(f"/callbacks/{path}"), data=body) as answer:
                seen.append((answer.status, (await answer.json()).get("duplicate")))
    assert seen == [
        *((401, None), (401, None), (401, None), (200, False), (200, True), (406, None)),
    ]


async def test_nobody_tells_of_anothers_mails(
    talk: Talk, master: Principal, server: MailgunServer
) -> None:
    await mailgun(talk, master, server)
    delivery_id = await handed_over(talk, master)
    stranger = await talk.client("other")
    theirs = await mailgun(talk, stranger, server)
    assert await tell(talk, theirs, event(delivery_id, "failed", **HARD)) == Told()
    assert await state_of(talk, delivery_id) == ("accepted", None)
    assert await talk.rows("select 1 from suppression") == []
    assert await tell(talk, theirs, event(None, "delivered")) == Told()
