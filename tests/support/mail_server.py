"""A real SMTP server in this loop that does on command what servers do."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass(slots=True)
class Behaviour:
    """What the server answers; a text in the place of a step is its refusal."""

    mail: str | None = None
    recipient: str | None = None
    content: str | None = None
    # `drop`: goes away without an answer, after the mail was taken; `hang`: never answers.
    fault: str | None = None
    password: str = "right"


@dataclass(slots=True)
class MailServer:
    """Where it listens, and what it took."""

    port: int = 0
    behaviour: Behaviour = field(default_factory=Behaviour)
    taken: list[Envelope] = field(default_factory=list)
    connections: int = 0
    logins: int = 0
    # Asked at the beginning of each mail how it is to be behaved to.
    mood: Callable[[], Behaviour] | None = None

    def mails(self) -> list[EmailMessage]:
        """Give what was taken, parsed."""
        contents = [each.content for each in self.taken if isinstance(each.content, bytes)]
        return [message_from_bytes(each, policy=policy.default) for each in contents]

    def connection_made(self) -> None:
        self.connections += 1

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's names
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.mood is not None:
            self.behaviour = self.mood()
        if self.behaviour.mail is not None:
            return self.behaviour.mail
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.behaviour.recipient is not None:
            return self.behaviour.recipient
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.behaviour.content is not None:
            return self.behaviour.content
        self.taken.append(envelope)
        if self.behaviour.fault == "drop":
            assert server.transport is not None
            server.transport.close()
        if self.behaviour.fault == "hang":
            await asyncio.sleep(3600)
        return "250 2.0.0 queued as 42"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        self.logins += 1
        good = isinstance(data, LoginPassword) and data.password == self.behaviour.password.encode()
        return AuthResult(success=good, handled=good, message=None if good else "535 5.7.8 no")


class _Counted(SMTP):
    counted: MailServer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.counted.connection_made()
        super().connection_made(transport)


@asynccontextmanager
async def mail_server(
    *, context: ssl.SSLContext | None = None, implicit: bool = False, **options: Any
) -> AsyncIterator[MailServer]:
    """Serve SMTP on a free port: with STARTTLS where there is a context, or TLS from the start."""
    made = MailServer()

    def protocol() -> SMTP:
        one = _Counted(
            made,
            hostname="mail.test",
            tls_context=None if implicit else context,
            authenticator=made.authenticate,
            auth_require_tls=False,
            enable_SMTPUTF8=False,
            loop=asyncio.get_running_loop(),
            **options,
        )
        one.counted = made
        return one

    listening = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", 0, ssl=context if implicit else None
    )
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
