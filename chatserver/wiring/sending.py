"""How notifications are sent: the request in one commit, then a lane for each channel."""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import orjson

from chatserver.deliveries.many import DeliveryExporter, ManyService
from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.selection import SelectionRepository
from chatserver.files.repository import FileRepository
from chatserver.infra import jobs
from chatserver.infra.job_kinds import SEND_BATCH, SEND_NOTIFICATIONS
from chatserver.infra.mail import Outcome
from chatserver.infra.mailgun_events import MailEvent
from chatserver.infra.push_client import WebPush
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.notifications.batches.repository import BatchRepository
from chatserver.notifications.batches.service import BatchService
from chatserver.notifications.callbacks.repository import CallbackRepository
from chatserver.notifications.callbacks.service import CallbackService
from chatserver.notifications.inbox.schemas import SocketContent
from chatserver.notifications.inbox.service import Item as InboxItem
from chatserver.notifications.mails import policies as mail_policies
from chatserver.notifications.mails.senders import EmailSender
from chatserver.notifications.push.senders import PushSender
from chatserver.notifications.requests import policies
from chatserver.notifications.requests.models import Item
from chatserver.notifications.requests.repository import NotificationLookup, NotificationRepository
from chatserver.notifications.requests.schemas import LimitOut
from chatserver.notifications.requests.senders import ForwardSender, InboxSender, Prepared
from chatserver.notifications.requests.service import NotificationService
from chatserver.notifications.texts.senders import TextProvider, TextSender
from chatserver.providers.service import place_of_config
from chatserver.transport.limits import quota_exceeded
from chatserver.users.repository import UserRepository
from chatserver.users.service import UserService
from chatserver.wiring.core import Core
from chatserver.wiring.files import FilesParts
from chatserver.wiring.notifications import Notifications
from chatserver.wiring.providers import Providers, mailgun_config, smtp_config
from chatserver.wiring.webhooks import TargetNotes, Webhooks

# By the kind of provider. There is none yet, and so no lane that would look for texts.
TEXT_PROVIDERS: Final[Mapping[str, TextProvider]] = {}
# At most so often it is looked for what waits for a provider that is stopped.
PASS_ON_S: Final = 0.25
CHANNELS: Final = (policies.EMAIL, policies.FORWARD, policies.SOCKET, policies.PUSH, policies.SMS)


Sender: TypeAlias = EmailSender | ForwardSender | InboxSender | PushSender | TextSender


class Sending:
    def __init__(
        self,
        core: Core,
        *,
        webhooks: Webhooks,
        providers: Providers,
        notifications: Notifications,
        files: FilesParts,
        people: Callable[[UnitOfWork], UserService],
    ) -> None:
        self._core = core
        self._webhooks = webhooks
        self._providers = providers
        self._notifications = notifications
        self._people = people
        # Set in a worker: a doorbell would come round about.
        self.wake_here: Callable[[], None] | None = None
        self.queue = webhooks.queue
        self.lookup = NotificationLookup(core.database)
        self.open_notifications = core.open(self.requests)
        self.open_batches = core.open(self._batches)
        self.open_many = core.open(self._many)
        self.exporter = DeliveryExporter(core.open(lambda work: SelectionRepository(work.session)))
        self.open_callbacks = core.open(self.callbacks)
        self.senders: dict[str, Sender] = {
            policies.EMAIL: EmailSender(
                self.lookup,
                core.box,
                mailers=Mailers(providers),
                attached=files.attached,
                config_place=place_of_config,
                bounced=self._bounced,
                unsubscribe_url=self._unsubscribe_url,
            ),
            policies.FORWARD: ForwardSender(
                self.lookup,
                core.box,
                client=webhooks.client,
                config_place=place_of_config,
                clock=utc_now,
            ),
            policies.SOCKET: InboxSender(self.lookup, core.box, open_inbox=core.open(self._within)),
            policies.PUSH: PushSender(
                self.lookup,
                core.box,
                store=notifications.push_store,
                keys=notifications.push_keys,
                service=WebPush(webhooks.client),
            ),
        }
        if TEXT_PROVIDERS:
            self.senders[policies.SMS] = self.text_sender(TEXT_PROVIDERS)
        self.notes = {
            channel: Rerouting(
                TargetNotes(core.open(webhooks.targets), channel),
                self.lookup,
                channel,
                wake=self.wake,
                refused=self._refused,
            )
            for channel in CHANNELS
        }
        notifications.acked = self._acked

    def text_sender(self, providers: Mapping[str, TextProvider]) -> TextSender:
        """Make what sends texts through these kinds of providers."""
        return TextSender(
            self.lookup, self._core.box, providers=providers, config_place=place_of_config
        )

    def requests(self, work: UnitOfWork) -> NotificationService:
        """Build the service within somebody's unit of work."""
        return NotificationService(
            notifications=NotificationRepository(work.session),
            deliveries=self._webhooks.deliveries(work),
            within=self._within(work),
            limits=self._limits,
            box=self._core.box,
            recorder=work,
            wake=self.wake,
        )

    def _batches(self, work: UnitOfWork) -> BatchService:
        async def later(client_id: UUID, batch_id: UUID) -> None:
            await jobs.plan(
                work.session,
                SEND_BATCH,
                dedupe=str(batch_id),
                client_id=client_id,
                payload=orjson.dumps({"batch_id": str(batch_id)}).decode(),
            )
            work.after_commit(lambda: self._core.doorbell.ring([SEND_BATCH.name]))

        async def known(client_id: UUID, names: Collection[str]) -> set[str]:
            return set(await UserRepository(work.session).ids(client_id, names)) if names else set()

        return BatchService(
            batches=BatchRepository(work.session),
            requests=self.requests(work),
            known=known,
            box=self._core.box,
            recorder=work,
            later=later,
        )

    def _many(self, work: UnitOfWork) -> ManyService:
        def wake() -> None:
            self._webhooks.wake()
            self.wake()

        return ManyService(
            selection=SelectionRepository(work.session), recorder=work, clock=utc_now, wake=wake
        )

    def callbacks(self, work: UnitOfWork) -> CallbackService:
        """Build the service within somebody's unit of work."""
        consent = self._notifications.consent(work)

        async def suppress(
            client_id: UUID, address: str, *, scope: str, reason: str, delivery_id: UUID
        ) -> None:
            if reason == "soft_bounce":
                await consent.soft_bounce(client_id, address, delivery_id)
            else:
                await consent.suppress_found(client_id, address, scope=scope, reason=reason)

        return CallbackService(
            callbacks=CallbackRepository(work.session),
            config_of=self._providers.providers(work).config,
            suppress=suppress,
            clock=utc_now,
        )

    async def lost(self, delivery_id: UUID) -> None:
        """Let whoever was to be told instead of a delivery be told now."""
        if await self.lookup.hasten_fallbacks(delivery_id):
            self.wake()

    def wake(self) -> None:
        """Have workers look for notifications now: this process's own lanes, if it has some."""
        if self.wake_here is not None:
            self.wake_here()
        else:
            self._core.doorbell.ring([SEND_NOTIFICATIONS])

    def _within(self, work: UnitOfWork) -> "_Within":
        return _Within(work, self._people(work), self._notifications)

    async def _limits(self, client_id: UUID, count: int) -> list[LimitOut]:
        gate = self._core.gate
        quotas = gate.book.of(client_id).quotas
        if count:
            refused = self._core.quotas.exceeded(client_id, "notifications", quotas, count)
            if refused is not None:
                raise quota_exceeded(refused)
            self._core.quotas.spend(client_id, "notifications", count)
        uses = await self._core.quotas.uses(client_id, quotas)
        return [
            LimitOut(
                policy=f"{use.metric}-per-{use.window}",
                limit=use.limit,
                remaining=max(0, use.limit - use.used),
                reset_at=use.resets_at,
            )
            for use in uses
            if use.metric == "notifications" and use.limit is not None
        ]

    async def _bounced(self, client_id: UUID, address: str) -> None:
        async with self._notifications.open_consent() as consent:
            await consent.suppress_found(client_id, address, reason="hard_bounce")

    async def _refused(self, claim: Claim) -> None:
        """Note that an address did not take a mail which is lost by now."""
        [prepared] = await self.senders[policies.EMAIL].load([claim])
        if isinstance(prepared, Prepared):
            async with self._notifications.open_consent() as consent:
                await consent.soft_bounce(claim.client_id, prepared.address, claim.id)

    def _unsubscribe_url(self, client_id: UUID, address: str, category: str) -> str | None:
        public = self._core.settings.public_url
        if public is None:
            return None
        token = self._notifications.unsubscribe_token(client_id, address, category)
        return f"{public.rstrip('/')}/u/{token}"

    async def _acked(self, client_id: UUID, deliveries: Sequence[UUID]) -> None:
        await self.lookup.settle(client_id, deliveries, "delivered", over=["accepted"])


class _Within:
    """Inboxes, what people want and what mails may carry, within one unit of work."""

    def __init__(self, work: UnitOfWork, people: UserService, notifications: Notifications) -> None:
        self._people = people
        self._inbox = notifications.inbox(work)
        self._consent = notifications.consent(work)
        self.name_address = self._consent.name_address
        self.devices = notifications.push_store.kinds
        kept = FileRepository(work.session)
        self.files, self.hold_files = kept.find, kept.hold

    async def keep(self, items: Sequence[Item]) -> None:
        if not items:
            return
        names = [item.external_id for item in items]
        users = await self._people.find(items[0].client_id, names, field="recipients")
        await self._inbox.put_all(
            items[0].client_id,
            [
                InboxItem(
                    user_id=users[item.external_id],
                    delivery_id=item.delivery_id,
                    category=item.category or policies.GENERAL,
                    content=SocketContent.model_validate(dict(item.content)),
                )
                for item in items
            ],
        )

    async def barred(
        self,
        client_id: UUID,
        asked: Sequence[tuple[str, str | None, str | None]],
        *,
        category: str | None,
        priority: str,
    ) -> list[str | None]:
        names = list(dict.fromkeys(person for _, person, _ in asked if person is not None))
        users = await self._people.find(client_id, names, field="recipients") if names else {}
        return await self._consent.barred(
            client_id,
            [
                (channel, None if person is None else users[person], address)
                for channel, person, address in asked
            ],
            category=category or policies.GENERAL,
            priority=priority,
        )


class Mailers:
    """Hands mails over to whichever kind of provider it is."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    async def __call__(
        self, kind: str, config: dict[str, Any], recipient: str, message: bytes, *, delivery_id: str
    ) -> Outcome:
        if kind == "smtp":
            return await self._providers.smtp.send(
                smtp_config(config), config["from"], recipient, message
            )
        if kind == "mailgun":
            return await self._providers.mailgun.send(
                mailgun_config(config), recipient, message, delivery_id=delivery_id
            )
        return Outcome(kind="configuration", phase="compose", text="no such kind of provider")

    async def told(
        self, kind: str, config: dict[str, Any], message_id: str, *, since: datetime | None
    ) -> Sequence[MailEvent] | None:
        if kind not in mail_policies.TELLING:
            return None
        return await self._providers.mailgun.events_of(
            mailgun_config(config), message_id, since=since
        )


class Rerouting:
    """Notes how well targets are, and gives to others what one of them can't send."""

    def __init__(
        self,
        notes: TargetNotes,
        lookup: NotificationLookup,
        channel: str,
        *,
        wake: Callable[[], None],
        refused: Callable[[Claim], Awaitable[None]],
    ) -> None:
        self.notes = notes
        self._refused = refused
        self._lookup = lookup
        self._channel = channel
        self._wake = wake
        self._passed_on_at = -PASS_ON_S

    async def failed(self, claim: Claim, sent: Sent, *, is_flapping: bool) -> bool:
        if self._channel == policies.PUSH:
            # Many services are behind the one target: each is left in peace by itself.
            return False
        # One mailbox that is full, or greylists, tells nothing of the provider: it is asked again.
        is_his = self._channel == policies.EMAIL and mail_policies.is_about_recipient(sent)
        is_stopped = not is_his and await self.notes.failed(claim, sent, is_flapping=is_flapping)
        if self._channel not in policies.ROUTED:
            return is_stopped
        if sent.outcome != "unknown":
            # Never after a mail that may have arrived: another provider would send it again.
            is_urgent = claim.age_s + claim.left_s <= policies.CRITICAL_LIFE_S
            moved = 0
            is_tried = not is_his and (claim.attempts >= 1 or sent.outcome == "configuration")
            if is_urgent or is_tried:
                moved = await self._lookup.reroute(claim.id)
            if is_stopped:
                moved += await self._lookup.reroute_all(claim.target_id, self._channel)
            if moved:
                self._wake()
        return is_stopped

    async def succeeded(self, claim: Claim) -> None:
        await self.notes.succeeded(claim)

    async def lost(self, claim: Claim, sent: Sent) -> None:
        if self._channel == policies.EMAIL and mail_policies.is_soft(sent.error):
            await self._refused(claim)
        if await self._lookup.hasten_fallbacks(claim.id):
            self._wake()

    async def pass_on(self) -> bool:
        if (
            self._channel not in policies.ROUTED
            or time.monotonic() < self._passed_on_at + PASS_ON_S
        ):
            return False
        self._passed_on_at = time.monotonic()
        return await self._lookup.reroute_stuck(self._channel) > 0

    async def gave_back(self, target_id: UUID) -> None:
        if self._channel in policies.ROUTED and await self._lookup.reroute_all(
            target_id, self._channel
        ):
            self._wake()
