"""Handing mails over to a server that speaks Mailgun's protocol, and asking what became of them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatserver.infra.addresses import Reach
from chatserver.infra.http_client import GuardedClient
from chatserver.infra.mail import Outcome
from chatserver.infra.mailgun import Mailgun, MailgunConfig
from chatserver.infra.mailgun_events import read_event
from tests.support.mailgun_server import MailgunServer, mailgun_server

MESSAGE = b"From: shop@example.org\r\nSubject: Hi\r\n\r\n--not a boundary--\r\n\x00\xff\r\n"
EVENT: dict[str, Any] = {
    "event": "failed",
    "severity": "permanent",
    "id": "G9Bn5sl1TC6nu79C8C0bwg",
    "timestamp": 1521233123.501324,
    "recipient": "bob@example.net",
    "reason": "bounce",
    "message": {"headers": {"message-id": "1@example.org"}},
    "delivery-status": {"code": 550, "message": "5.1.1 no such user"},
    "user-variables": {"delivery_id": "018f"},
}


@pytest.fixture
async def server() -> AsyncIterator[MailgunServer]:
    async with mailgun_server() as made:
        yield made


@pytest.fixture
async def mailgun() -> AsyncIterator[Mailgun]:
    async with GuardedClient(Reach(private=True), total_s=0.5) as client:
        yield Mailgun(client)


def config(server: MailgunServer, **members: Any) -> MailgunConfig:
    given = {"domain": "mg.example.org", "api_key": "key-right", "base_url": server.url}
    return MailgunConfig(**(given | members))


async def send(mailgun: Mailgun, server: MailgunServer, **members: Any) -> Outcome:
    return await mailgun.send(
        config(server, **members), "bob@example.net", MESSAGE, delivery_id="018f"
    )


async def test_it_is_handed_over_as_it_was_written(mailgun: Mailgun, server: MailgunServer) -> None:
    outcome = await send(mailgun, server)
    assert (outcome.kind, outcome.provider_message_id) == ("accepted", "<42@mg.example.org>")
    assert server.taken == [
        {
            "to": b"bob@example.net",
            "v:delivery_id": b"018f",
            "o:tracking": b"no",
            "message": MESSAGE,
        }
    ]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "'to' parameter is not a valid address. please check documentation", "recipient"),
        (400, "'from' parameter is missing", "content"),
        (401, "Invalid private key", "configuration"),
        (402, "no more credit", "configuration"),
        (403, "Domain is not allowed to send", "configuration"),
        (404, "Domain not found", "configuration"),
        (413, "message too large", "content"),
        (429, "slow down", "throttled"),
        (500, "oops", "retryable"),
        (503, "oops", "retryable"),
    ],
)
async def test_what_answers_mean(
    mailgun: Mailgun, server: MailgunServer, status: int, message: str, kind: str
) -> None:
    server.answer, server.headers = (status, {"message": message}), {"Retry-After": "7"}
    outcome = await send(mailgun, server)
    assert (outcome.kind, outcome.code, outcome.text) == (kind, status, message)
    assert outcome.retry_after_s == (7 if status == 429 else None)
    assert server.taken == []


@pytest.mark.parametrize("fault", ["drop", "hang"])
async def test_no_answer_is_ambiguous_and_can_be_looked_up(
    mailgun: Mailgun, server: MailgunServer, fault: str
) -> None:
    server.fault = fault
    outcome = await send(mailgun, server)
    assert (outcome.kind, len(server.taken)) == ("ambiguous", 1)
    assert await mailgun.events_of(config(server), "<1@example.org>") == []
    server.events = [EVENT, {**EVENT, "event": "accepted", "id": "b"}]
    found = await mailgun.events_of(config(server), "<1@example.org>")
    assert found is not None
    assert [event.kind for event in found] == ["bounced", "deferred"]
    assert server.asked[-1]["message-id"] == "1@example.org"


async def test_a_wrong_key_is_told_and_never_shown(mailgun: Mailgun, server: MailgunServer) -> None:
    wrong = config(server, api_key="key-wr0ng")
    assert (await mailgun.verify(wrong)).kind == "configuration"
    assert (await mailgun.verify(config(server))).kind == "accepted"
    assert await mailgun.events_of(wrong, "<1>") is None
    outcome = await send(mailgun, server, api_key="key-wr0ng")
    assert outcome.kind == "configuration"
    assert "wr0ng" not in f"{outcome}{wrong!r}"


async def test_a_private_address_is_not_reached(server: MailgunServer) -> None:
    async with GuardedClient(Reach()) as client:
        outcome = await send(Mailgun(client), server)
    assert outcome.kind == "configuration"
    assert server.taken == []


class TestEvents:
    def test_everything_is_read(self) -> None:
        event = read_event(EVENT)
        assert event is not None
        assert (event.kind, event.recipient, event.delivery_id, event.message_id, event.reason) == (
            "bounced",
            "bob@example.net",
            "018f",
            "1@example.org",
            "5.1.1 no such user",
        )
        assert event.at.isoformat() == "2018-03-16T20:45:23.501324+00:00"

    @pytest.mark.parametrize(
        ("members", "kind"),
        [
            ({"severity": "temporary"}, "deferred"),
            ({"event": "delivered"}, "delivered"),
            ({"event": "complained"}, "complained"),
            ({"event": "unsubscribed"}, "unsubscribed"),
            ({"event": "rejected"}, "bounced"),
        ],
    )
    def test_kinds(self, members: dict[str, Any], kind: str) -> None:
        event = read_event(EVENT | members)
        assert event is not None
        assert event.kind == kind

    @pytest.mark.parametrize(
        "data",
        [
            None,
            [],
            {},
            EVENT | {"event": "stored"},
            EVENT | {"event": "accepted"},
            EVENT | {"event": ["delivered"]},
            EVENT | {"id": 5},
            EVENT | {"recipient": None},
            EVENT | {"timestamp": "now"},
            EVENT | {"timestamp": 1e300},
            EVENT | {"timestamp": True},
        ],
    )
    def test_what_is_none_is_left(self, data: Any) -> None:
        assert read_event(data) is None

    def test_what_is_missing_is_missing(self) -> None:
        event = read_event(EVENT | {"message": None, "user-variables": [], "delivery-status": 3})
        assert event is not None
        assert (event.message_id, event.delivery_id, event.reason) == (None, None, "bounce")
