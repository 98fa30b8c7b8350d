"""Hands mails to SMTP servers (RFC 5321), and says exactly how far it came.

A mail that was handed over and never answered for is `ambiguous`: whoever tries it again may send
it twice. Everything before the last dot is safe to repeat.
"""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import aiosmtplib
import structlog
from aiohttp.abc import AbstractResolver
from aiosmtplib.protocol import normalize_message_line_endings
from aiosmtplib.response import SMTPResponse

from chatserver.infra.addresses import AddressRefusedError, Reach, check_address
from chatserver.infra.http_client import GuardedResolver
from chatserver.infra.mail import Kind, Outcome, Phase

# Big providers allow no more than two connections of one account.
CONNECTIONS: Final = 2
MAILS_PER_CONNECTION: Final = 100
LONGEST_S: Final = 300.0
IDLE_S: Final = 30.0
COMMAND_S: Final = 20.0
CONNECT_S: Final = 10.0
# The answer to the last dot may take long: servers filter before they answer.
ANSWER_S: Final = 60.0
SHOWN: Final = 500
GREYLISTED_S: Final = 300.0
LATER_S: Final = 30.0

_ENHANCED: Final = re.compile(r"^\s*([245]\.\d{1,3}\.\d{1,3})\b")
_GREYLIST: Final = re.compile(r"gr[ea]ylist", re.IGNORECASE)
_DOT: Final = re.compile(rb"(?m)^\.")
_READY, _GO_ON = 250, 354

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SmtpConfig:
    """Where mails are handed over. `required`: by STARTTLS; `implicit`: TLS from the first byte."""

    host: str
    port: int
    tls: Literal["required", "implicit", "none"] = "required"
    username: str | None = None
    password: str | None = field(default=None, repr=False)


class Clock(Protocol):
    """Seconds that only go up."""

    def __call__(self) -> float: ...


class _FailedError(Exception):
    """An attempt ended; the outcome says how."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


@dataclass(slots=True, eq=False)
class _Line:
    """A connection that is logged in."""

    client: aiosmtplib.SMTP
    peer: str
    opened_at: float
    used_at: float
    mails: int = 0


@dataclass(slots=True, eq=False)
class _Account:
    """What is open to one server."""

    places: asyncio.Semaphore
    idle: list[_Line] = field(default_factory=list)
    users: int = 0


class SmtpPool:
    """Keeps a few connections per configuration; one per process. `close` it.

    `context`: whom TLS trusts; without one the system's authorities.
    """

    def __init__(
        self,
        reach: Reach | None = None,
        *,
        resolver: AbstractResolver | None = None,
        context: ssl.SSLContext | None = None,
        local_hostname: str = "localhost",
        clock: Clock = time.monotonic,
    ) -> None:
        self._reach = reach or Reach()
        self._resolver = GuardedResolver(self._reach, resolver)
        self._context = context
        self._local_hostname = local_hostname
        self._clock = clock
        self._accounts: dict[SmtpConfig, _Account] = {}

    async def send(
        self, config: SmtpConfig, sender: str, recipient: str, message: bytes
    ) -> Outcome:
        """Hand one mail over, for one recipient; what goes wrong is an outcome."""
        async with self._place(config) as account:
            line, is_kept = None, False
            try:
                line, is_kept = await self._line(config, account)
                return await self._hand_over(line, account, sender, recipient, message)
            except _FailedError as failed:
                if not is_kept or failed.outcome.phase != "sender" or failed.outcome.code:
                    return failed.outcome
                # The server had closed a kept connection, which shows only when it is used.
                try:
                    line = await self._open(config)
                    return await self._hand_over(line, account, sender, recipient, message)
                except _FailedError as again:
                    return again.outcome

    async def verify(self, config: SmtpConfig, sender: str) -> Outcome:
        """Connect, log in and name the sender, without sending anything."""
        try:
            line = await self._open(config)
        except _FailedError as failed:
            return failed.outcome
        try:
            await self._ask(line, "sender", f"MAIL FROM:<{sender}>")
            return Outcome(kind="accepted", phase="sender", peer=line.peer)
        except _FailedError as failed:
            return failed.outcome
        finally:
            await _quit(line)

    async def tidy(self) -> None:
        """Close what nobody has used for a while."""
        for config, account in list(self._accounts.items()):
            for line in [line for line in account.idle if self._is_old(line)]:
                account.idle.remove(line)
                await _quit(line)
            if not account.idle and not account.users:
                del self._accounts[config]

    async def close(self) -> None:
        for account in self._accounts.values():
            for line in account.idle:
                await _quit(line)
        self._accounts.clear()
        await self._resolver.close()

    @asynccontextmanager
    async def _place(self, config: SmtpConfig) -> AsyncIterator[_Account]:
        account = self._accounts.get(config)
        if account is None:
            account = self._accounts[config] = _Account(asyncio.Semaphore(CONNECTIONS))
        account.users += 1
        try:
            async with account.places:
                yield account
        finally:
            account.users -= 1

    def _is_old(self, line: _Line) -> bool:
        now = self._clock()
        return now - line.used_at > IDLE_S or now - line.opened_at > LONGEST_S

    async def _line(self, config: SmtpConfig, account: _Account) -> tuple[_Line, bool]:
        while account.idle:
            line = account.idle.pop()
            if line.client.is_connected and not self._is_old(line):
                return line, True
            await _quit(line)
        return await self._open(config), False

    async def _open(self, config: SmtpConfig) -> _Line:
        """Connect, encrypt, log in."""
        made, peer = await self._connect(config)
        # The host is only what the certificate is checked for: the socket is connected already.
        client = aiosmtplib.SMTP(
            hostname=config.host,
            sock=made,
            timeout=COMMAND_S,
            use_tls=config.tls == "implicit",
            start_tls=False,
            tls_context=self._trusted() if config.tls == "implicit" else None,
            local_hostname=self._local_hostname,
        )
        line = _Line(client, peer, self._clock(), self._clock())
        try:
            await self._greet(line, config)
        except BaseException:
            client.close()
            made.close()
            raise
        return line

    async def _connect(self, config: SmtpConfig) -> tuple[socket.socket, str]:
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await self._resolver.resolve(config.host, config.port)
        except AddressRefusedError as error:
            raise _failed("configuration", "resolve", f"The host {error}.") from error
        except (OSError, TimeoutError) as error:
            raise _failed("retryable", "resolve", "The host can't be found.") from error
        for each in found:
            check_address(each["host"], self._reach)
            family = socket.AF_INET6 if ":" in each["host"] else socket.AF_INET
            made = socket.socket(family, socket.SOCK_STREAM)
            made.setblocking(False)  # noqa: FBT003 - the library's own
            try:
                async with asyncio.timeout(CONNECT_S):
                    loop = asyncio.get_running_loop()
                    await loop.sock_connect(made, (each["host"], each["port"]))
            except (OSError, TimeoutError):
                made.close()
                continue
            except BaseException:
                made.close()
                raise
            return made, each["host"]
        raise _failed("retryable", "connect", "No connection could be made.")

    async def _greet(self, line: _Line, config: SmtpConfig) -> None:
        phase: Phase = "tls" if config.tls == "implicit" else "connect"
        try:
            await line.client.connect(timeout=CONNECT_S)
            phase = "connect"
            await line.client.ehlo()
            if config.tls == "required":
                phase = "tls"
                _require_tls(line.client)
                await line.client.starttls(server_hostname=config.host, tls_context=self._trusted())
                await line.client.ehlo()
            if config.username is not None:
                phase = "auth"
                await line.client.login(config.username, config.password or "")
        except Exception as error:
            raise _FailedError(_unmet(error, phase, line.peer)) from error

    def _trusted(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context

    async def _hand_over(
        self, line: _Line, account: _Account, sender: str, recipient: str, message: bytes
    ) -> Outcome:
        is_clean = False
        try:
            if line.mails:
                await self._ask(line, "sender", "RSET")
            await self._ask(line, "sender", f"MAIL FROM:<{sender}>")
            await self._ask(line, "recipient", f"RCPT TO:<{recipient}>")
            await self._ask(line, "data", "DATA", expected=_GO_ON)
            outcome = await self._content(line, message)
            is_clean = True
            return outcome
        except _FailedError as failed:
            # What was refused with a number leaves the conversation in order.
            is_clean = failed.outcome.code is not None
            raise
        finally:
            line.mails += 1
            line.used_at = self._clock()
            is_used_up = line.mails >= MAILS_PER_CONNECTION or self._is_old(line)
            if is_clean and line.client.is_connected and not is_used_up:
                account.idle.append(line)
            else:
                await _quit(line, politely=is_clean)

    async def _ask(
        self, line: _Line, phase: Phase, command: str, *, expected: int | None = None
    ) -> SMTPResponse:
        try:
            answer = await line.client.execute_command(command.encode("ascii"), timeout=COMMAND_S)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            text = "The server went away or did not answer in time."
            raise _failed("retryable", phase, text, peer=line.peer) from error
        except ValueError as error:
            raise _failed("content", "compose", "An address has a forbidden character.") from error
        if answer.code == expected or (expected is None and 200 <= answer.code < 300):  # noqa: PLR2004
            return answer
        raise _FailedError(judged(answer.code, answer.message, phase, line.peer))

    async def _content(self, line: _Line, message: bytes) -> Outcome:
        """Send the text and its last dot: from there on only the answer tells."""
        protocol = line.client.protocol
        assert protocol is not None  # noqa: S101 - it has just answered
        try:
            protocol.write(_DOT.sub(b"..", normalize_message_line_endings(message)) + b".\r\n")
            answer = await protocol.read_response(timeout=ANSWER_S)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            line.client.close()
            text = "The mail was handed over, and the answer never came."
            raise _failed("ambiguous", "answer", text, peer=line.peer) from error
        if answer.code != _READY:
            raise _FailedError(judged(answer.code, answer.message, "answer", line.peer))
        return Outcome(
            kind="accepted",
            phase="done",
            code=answer.code,
            enhanced=_enhanced(answer.message),
            text=_shown(answer.message),
            peer=line.peer,
        )


def judged(code: int, text: str, phase: Phase, peer: str | None) -> Outcome:
    """Say what a refusal means, by its code (RFC 5321), its enhanced code (RFC 3463) and phase."""
    enhanced = _enhanced(text)
    kind: Kind
    retry_after_s = None
    if 400 <= code < 500:  # noqa: PLR2004 - the class of transient refusals
        is_grey = enhanced == "4.7.1" or _GREYLIST.search(text) is not None
        is_much = code == 421 or (enhanced or "").startswith(("4.7.", "4.5.3", "4.3.2"))  # noqa: PLR2004
        kind = "throttled" if is_much and not is_grey else "retryable"
        retry_after_s = GREYLISTED_S if is_grey else LATER_S
    elif phase in ("connect", "tls", "auth", "sender"):
        kind = "configuration"
    elif (enhanced or "").startswith("5.7."):
        kind = "content"
    elif phase == "recipient" or (enhanced or "").startswith(("5.1.", "5.2.")):
        kind = "recipient"
    else:
        kind = "content"
    return Outcome(
        kind=kind,
        phase=phase,
        code=code,
        enhanced=enhanced,
        text=_shown(text),
        retry_after_s=retry_after_s,
        peer=peer,
    )


def _unmet(error: Exception, phase: Phase, peer: str) -> Outcome:
    """Say what it means that no conversation came about."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return judged(error.code, error.message, phase, peer)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            text = "The TLS handshake failed, or the certificate is not trusted."
            return Outcome(kind="configuration", phase="tls", text=text, peer=peer)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        text = "The server does not offer what the configuration needs (TLS, or this log-in)."
        return Outcome(kind="configuration", phase=phase, text=text, peer=peer)
    if isinstance(error, aiosmtplib.SMTPException | OSError | TimeoutError):
        text = "The server went away or did not answer in time."
        return Outcome(kind="retryable", phase=phase, text=text, peer=peer)
    raise error


def _require_tls(client: aiosmtplib.SMTP) -> None:
    if not client.supports_extension("starttls"):
        raise aiosmtplib.SMTPNotSupported("STARTTLS")


def _failed(kind: Kind, phase: Phase, text: str, *, peer: str | None = None) -> _FailedError:
    return _FailedError(Outcome(kind=kind, phase=phase, text=text, peer=peer))


def _enhanced(text: str) -> str | None:
    found = _ENHANCED.match(text)
    return found.group(1) if found else None


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:SHOWN]


async def _quit(line: _Line, *, politely: bool = True) -> None:
    try:
        if politely and line.client.is_connected:
            async with asyncio.timeout(1):
                await line.client.quit()
    except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
        log.debug("smtp_quit_unheard", error=type(error).__name__)
    finally:
        line.client.close()


__all__: Sequence[str] = ("SmtpConfig", "SmtpPool", "judged")
