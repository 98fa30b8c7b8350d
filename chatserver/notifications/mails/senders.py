"""How mails are sent: one try, told as an outcome; what may have arrived is asked after first."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import parseaddr
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.queue import LEASE_S
from chatserver.infra.mail import Attachment, Mail, MailInvalidError, Outcome, compose
from chatserver.infra.mailgun_events import MailEvent
from chatserver.infra.secrets import SecretBox, UnreadableSecretError
from chatserver.infra.storage import ObjectMissingError
from chatserver.kernel.errors import UnavailableError
from chatserver.notifications.mails.policies import (
    TELLING,
    is_soft,
    may_repeat,
    may_wait,
    reconciled,
)
from chatserver.notifications.requests.policies import PRIORITIES, UNKNOWN
from chatserver.notifications.requests.senders import (
    Lookup,
    Prepared,
    ProviderReader,
    handed_over,
    skipped,
)

# A try that was cut off is noted when its lease ends, and clocks differ.
KNOWN_WITHIN: Final = timedelta(seconds=LEASE_S + 60)
# Mails with files at once, of one process: each may take 50 MiB until it is handed over.
AT_ONCE: Final = 4
# So long one waits for its turn, with its lease running; then another may.
TURN_S: Final = 10.0
# Enough is left of the lease to hand the mail over.
READ_S: Final = 15.0
LATER_S: Final = 10.0


class MailSenders(Protocol):
    """Who hands mails over, for each kind of provider."""

    async def __call__(
        self, kind: str, config: dict[str, Any], recipient: str, message: bytes, *, delivery_id: str
    ) -> Outcome:
        """Hand one mail over."""
        ...

    async def told(
        self, kind: str, config: dict[str, Any], message_id: str, *, since: datetime | None
    ) -> Sequence[MailEvent] | None:
        """Tell what became of a mail that may have been handed over, where one can ask.

        Empty: it is not known there. None: it can't be asked now. `since`: nothing older counts.
        """
        ...


class Bounces(Protocol):
    """Who is told that an address does not exist."""

    async def __call__(self, client_id: UUID, address: str) -> None:
        """Send nothing there any more."""
        ...


class Attached(Protocol):
    """The contents of a client's files."""

    async def __call__(
        self, client_id: UUID, asked: Sequence[tuple[UUID, str | None]]
    ) -> list[Attachment]:
        """Read files by (id, name that it is to have), in this order.

        Raises:
            ObjectMissingError: one of them is not there any more.
            UnavailableError: they can't be read now.
        """
        ...


class EmailSender(ProviderReader):
    """Sends mails."""

    def __init__(
        self,
        lookup: Lookup,
        box: SecretBox,
        *,
        mailers: MailSenders,
        attached: Attached,
        config_place: Any,  # noqa: ANN401 - a function of two ids
        bounced: Bounces,
        unsubscribe_url: Any,  # noqa: ANN401 - a function, or None
    ) -> None:
        super().__init__(lookup, box, config_place=config_place)
        self._mailers = mailers
        self._attached = attached
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._bounced = bounced
        self._unsubscribe_url = unsubscribe_url

    async def send(self, claim: Claim, prepared: Prepared | None) -> Sent:
        """Send it once. Never raises but for cancellation: what goes wrong is an outcome."""
        if prepared is not None and prepared.row["unknowns"]:
            # Before anything else: it may have gone out, whatever was wished since.
            known = await self._known(claim, prepared)
            if known is not None:
                return known
        if (not_tried := skipped(prepared)) is not None:
            return not_tried
        assert prepared is not None  # noqa: S101 - `skipped` said so
        row = prepared.row
        if row["provider_config"] is None:
            return Sent(outcome="configuration", error="provider_gone")
        try:
            config = self._config(claim, row)
            mail = self._mail(claim, prepared, config)
        except UnreadableSecretError:
            return Sent(outcome="configuration", error="credentials_unreadable")
        # What was said before there were attachments has none.
        asked = prepared.content.get("attachments")
        if asked:
            return await self._with_files(claim, prepared, config, mail, asked)
        return await self._hand_over(claim, prepared, config, mail)

    async def _with_files(
        self,
        claim: Claim,
        prepared: Prepared,
        config: dict[str, Any],
        mail: Mail,
        asked: Sequence[Mapping[str, Any]],
    ) -> Sent:
        try:
            async with asyncio.timeout(TURN_S):
                await self._turns.acquire()
        except TimeoutError:
            return Sent(outcome="waiting", error="attachments_busy", retry_after_s=LATER_S)
        try:
            files = await self._read(claim, asked)
            if isinstance(files, Sent):
                return files
            return await self._hand_over(claim, prepared, config, replace(mail, attachments=files))
        finally:
            self._turns.release()

    async def _read(
        self, claim: Claim, asked: Sequence[Mapping[str, Any]]
    ) -> Sequence[Attachment] | Sent:
        try:
            async with asyncio.timeout(READ_S):
                return await self._attached(
                    claim.client_id, [(UUID(each["file_id"]), each["filename"]) for each in asked]
                )
        except ObjectMissingError:
            return Sent(outcome="rejected", error="attachment_gone")
        except (UnavailableError, TimeoutError):
            # Nobody was asked: no provider is to blame for it, and no try is spent.
            return Sent(outcome="waiting", error="storage_away", retry_after_s=LATER_S)

    async def _hand_over(
        self, claim: Claim, prepared: Prepared, config: dict[str, Any], mail: Mail
    ) -> Sent:
        row = prepared.row
        try:
            if mail.attachments:
                # Some hundred milliseconds of encoding, which other deliveries must not wait for.
                message = await asyncio.to_thread(compose, mail)
            else:
                message = compose(mail)
        except MailInvalidError:
            return Sent(outcome="rejected", error="mail_invalid")
        kind = row["provider_kind"]
        began = time.monotonic()
        outcome = await self._mailers(
            kind, config, prepared.address, message, delivery_id=str(claim.id)
        )
        latency_ms = int((time.monotonic() - began) * 1000)
        # Nobody is told twice of an offer.
        sent = handed_over(outcome, latency_ms, may_repeat=may_wait(row))
        if outcome.kind == "recipient" and not is_soft(sent.error):
            await self._bounced(claim.client_id, prepared.address)
        return sent

    async def _known(self, claim: Claim, prepared: Prepared) -> Sent | None:
        """Ask the provider what became of a mail that it may have. None: it is sent again."""
        row = prepared.row
        is_over = not may_repeat(row)
        if row["provider_kind"] not in TELLING or row["provider_config"] is None:
            return Sent(outcome="rejected", error=UNKNOWN) if is_over else None
        try:
            config = self._config(claim, row)
        except UnreadableSecretError:
            return Sent(outcome="configuration", error="credentials_unreadable")
        began = time.monotonic()
        events = await self._mailers.told(
            row["provider_kind"],
            config,
            _message_id(claim, config["from"]),
            # A replay has the Message-ID of what was sent before, which tells nothing of this one.
            since=None if claim.generation == 1 else row["unknown_since"] - KNOWN_WITHIN,
        )
        sent = reconciled(events, is_over=is_over)
        if sent is None:
            return None
        if events is not None and any(event.is_hard for event in events):
            await self._bounced(claim.client_id, prepared.address)
        return replace(sent, latency_ms=int((time.monotonic() - began) * 1000))

    def _mail(self, claim: Claim, prepared: Prepared, config: dict[str, Any]) -> Mail:
        sender = config["from"]
        content, row = prepared.content, prepared.row
        url = None
        if row["category"] and row["priority"] != PRIORITIES["critical"] and self._unsubscribe_url:
            url = self._unsubscribe_url(claim.client_id, prepared.address, row["category"])
        return Mail(
            sender=sender,
            sender_name=config.get("from_name"),
            recipient=prepared.address,
            recipient_name=prepared.name,
            subject=content["subject"],
            text=content["text"],
            html=content["html"],
            reply_to=content["reply_to"],
            headers=content["headers"],
            message_id=_message_id(claim, sender),
            at=row["created_at"],
            unsubscribe_url=url,
        )


def _message_id(claim: Claim, sender: str) -> str:
    """Name a mail: the same for all tries, through whomever."""
    return f"<{claim.id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
