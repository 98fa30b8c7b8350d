"""Handing mails over to a real SMTP server, which refuses, goes away and stalls on command."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from chatserver.infra import smtp
from chatserver.infra.addresses import Reach
from chatserver.infra.mail import Mail, Outcome, compose
from chatserver.infra.smtp import SmtpConfig, SmtpPool
from tests.support.certificates import contexts
from tests.support.mail_server import MailServer, mail_server

MESSAGE = compose(
    Mail(
        sender="shop@example.org",
        recipient="bob@example.net",
        subject="Grüße",
        message_id="<1@example.org>",
        at=datetime(2026, 1, 2, tzinfo=UTC),
        text="one\n.two\n..three\n",
    )
)


class Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        return


@pytest.fixture
async def pool() -> AsyncIterator[SmtpPool]:
    made = SmtpPool(Reach(private=True))
    yield made
    await made.close()


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with mail_server() as made:
        yield made


async def send(pool: SmtpPool, server: MailServer, **config: Any) -> Outcome:
    plain = SmtpConfig(host="127.0.0.1", port=server.port, **({"tls": "none"} | config))
    return await pool.send(plain, "shop@example.org", "bob@example.net", MESSAGE)


async def test_it_arrives_byte_by_byte(pool: SmtpPool, server: MailServer) -> None:
    outcome = await send(pool, server)
    assert (outcome.kind, outcome.phase, outcome.code, outcome.enhanced) == (
        "accepted",
        "done",
        250,
        "2.0.0",
    )
    assert outcome.peer == "127.0.0.1"
    [envelope] = server.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("shop@example.org", ["bob@example.net"])
    assert envelope.content == MESSAGE
    [mail] = server.mails()
    assert mail["Subject"] == "Grüße"


async def test_connections_are_kept_and_never_more_than_two(
    pool: SmtpPool, server: MailServer
) -> None:
    outcomes = await asyncio.gather(*(send(pool, server) for _ in range(20)))
    assert {outcome.kind for outcome in outcomes} == {"accepted"}
    assert (len(server.taken), server.connections) == (20, 2)


async def test_a_connection_is_changed_after_a_hundred_mails(
    pool: SmtpPool, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "MAILS_PER_CONNECTION", 2)
    for _ in range(5):
        assert (await send(pool, server)).kind == "accepted"
    assert server.connections == 3


@pytest.mark.parametrize(
    ("step", "answer", "kind", "phase", "retry_after_s"),
    [
        ("recipient", "550 5.1.1 no such user", "recipient", "recipient", None),
        ("recipient", "552 5.2.2 mailbox full", "recipient", "recipient", None),
        ("recipient", "550 5.7.1 not wanted", "content", "recipient", None),
        ("recipient", "451 4.7.1 Greylisted", "retryable", "recipient", 300),
        ("recipient", "450 4.2.0 please try later, graylist", "retryable", "recipient", 300),
        ("recipient", "452 4.5.3 too many", "throttled", "recipient", 30),
        ("mail", "553 5.7.1 not your address", "configuration", "sender", None),
        ("mail", "421 4.3.2 too busy", "throttled", "sender", 30),
        ("content", "554 5.6.0 spam", "content", "answer", None),
        ("content", "452 4.3.1 disk full", "retryable", "answer", 30),
        ("content", "550 5.1.1 gone", "recipient", "answer", None),
    ],
)
async def test_what_refusals_mean(
    pool: SmtpPool,
    server: MailServer,
    step: str,
    answer: str,
    kind: str,
    phase: str,
    retry_after_s: float | None,
) -> None:
    setattr(server.behaviour, step, answer)
    outcome = await send(pool, server)
    assert (outcome.kind, outcome.phase, outcome.retry_after_s) == (kind, phase, retry_after_s)
    assert (outcome.code, outcome.text) == (int(answer[:3]), answer[4:])
    setattr(server.behaviour, step, None)
    assert (await send(pool, server)).kind == "accepted"
    assert len(server.taken) == 1


@pytest.mark.parametrize("fault", ["drop", "hang"])
async def test_no_answer_to_the_last_dot_is_ambiguous(
    pool: SmtpPool, server: MailServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "ANSWER_S", 0.3)
    server.behaviour.fault = fault
    outcome = await send(pool, server)
    assert (outcome.kind, outcome.phase) == ("ambiguous", "answer")
    # It did take the mail: whoever sends it again sends it twice.
    assert len(server.taken) == 1
    server.behaviour.fault = None
    assert (await send(pool, server)).kind == "accepted"


async def test_a_kept_connection_that_the_server_closed_is_made_anew(pool: SmtpPool) -> None:
    async with mail_server(timeout=0.1) as server:
        assert (await send(pool, server)).kind == "accepted"
        await asyncio.sleep(0.3)  # the server's own timeout
        assert (await send(pool, server)).kind == "accepted"
        assert (len(server.taken), server.connections) == (2, 2)


async def test_nobody_listening_is_retryable(pool: SmtpPool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = SmtpConfig(host="127.0.0.1", port=free.getsockname()[1], tls="none")
        outcome = await pool.send(nobody, "a@b.c", "d@e.f", b"")
    assert (outcome.kind, outcome.phase) == ("retryable", "connect")


async def test_a_private_server_is_not_reached() -> None:
    pool = SmtpPool(Reach(), resolver=Here())
    for host in ("127.0.0.1", "mail.example.org"):
        outcome = await pool.send(SmtpConfig(host=host, port=25, tls="none"), "a@b.c", "d@e.f", b"")
        assert (outcome.kind, outcome.phase) == ("configuration", "resolve")
    await pool.close()


class TestTls:
    @pytest.mark.parametrize("tls", ["required", "implicit"])
    async def test_the_whole_conversation_is_encrypted_and_the_server_known(
        self, tmp_path: Path, tls: str
    ) -> None:
        theirs, ours = contexts(tmp_path, "mail.example.org")
        async with mail_server(context=theirs, implicit=tls == "implicit") as server:
            pool = SmtpPool(Reach(private=True), resolver=Here(), context=ours)
            outcome = await pool.send(
                SmtpConfig(host="mail.example.org", port=server.port, tls=tls),  # type: ignore[arg-type]
                "shop@example.org",
                "bob@example.net",
                MESSAGE,
            )
            assert outcome.kind == "accepted"
            elsewhere = await pool.send(
                SmtpConfig(host="other.example.org", port=server.port, tls=tls),  # type: ignore[arg-type]
                "shop@example.org",
                "bob@example.net",
                MESSAGE,
            )
            assert (elsewhere.kind, elsewhere.phase) == ("configuration", "tls")
            await pool.close()
            assert len(server.taken) == 1

    async def test_without_tls_nothing_is_said(self, pool: SmtpPool, server: MailServer) -> None:
        outcome = await send(pool, server, tls="required", username="u", password="right")
        assert (outcome.kind, outcome.phase) == ("configuration", "tls")
        assert (server.logins, server.taken) == (0, [])


class TestLogIn:
    async def test_the_right_password(self, pool: SmtpPool, server: MailServer) -> None:
        outcome = await send(pool, server, username="u", password="right")
        assert (outcome.kind, server.logins) == ("accepted", 1)

    async def test_a_wrong_one_is_told_and_never_shown(
        self, pool: SmtpPool, server: MailServer
    ) -> None:
        outcome = await send(pool, server, username="u", password="wr0ng")
        assert (outcome.kind, outcome.phase, outcome.code) == ("configuration", "auth", 535)
        config = SmtpConfig(host="h", port=25, username="u", password="wr0ng")
        assert "wr0ng" not in f"{outcome}{config!r}"

    async def test_verifying_sends_nothing(self, pool: SmtpPool, server: MailServer) -> None:
        config = SmtpConfig(
            host="127.0.0.1", port=server.port, tls="none", username="u", password="right"
        )
        assert (await pool.verify(config, "shop@example.org")).kind == "accepted"
        server.behaviour.mail = "553 5.7.1 not your address"
        refused = await pool.verify(config, "shop@example.org")
        assert (refused.kind, refused.phase) == ("configuration", "sender")
        assert server.taken == []
