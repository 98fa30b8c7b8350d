"""Outbound webhooks: endpoints, their events, the machinery that delivers, and its lane."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

import orjson
import structlog

from chatserver.chat.repository import ChatLog
from chatserver.deliveries.failures import FailureService
from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.policies import Change
from chatserver.deliveries.queue import DeliveryQueue
from chatserver.deliveries.repository import DeliveryRepository
from chatserver.deliveries.service import DeliveryService
from chatserver.deliveries.targets import TargetService
from chatserver.infra import jobs
from chatserver.infra.addresses import Reach
from chatserver.infra.http_client import GuardedClient
from chatserver.infra.job_kinds import REPLAY_EVENTS, SEND_DELIVERIES
from chatserver.infra.outbox import OutboxRow
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.kernel.opening import Open
from chatserver.providers.events import provider_fact
from chatserver.providers.repository import ProviderRepository
from chatserver.webhooks.endpoints.models import CHANNEL
from chatserver.webhooks.endpoints.planner import EventPlanner
from chatserver.webhooks.endpoints.replays import Replaying, Replays
from chatserver.webhooks.endpoints.repository import EndpointRepository, Outgoing
from chatserver.webhooks.endpoints.sender import FactReader, WebhookSender, headers_of
from chatserver.webhooks.endpoints.service import EndpointLimits, EndpointService
from chatserver.wiring.core import Core

log = structlog.get_logger()


class Webhooks:
    """`log` gives facts of rooms as they are now."""

    def __init__(self, core: Core, log: ChatLog) -> None:
        self._core = core
        # Set in a worker: a doorbell would come round about.
        self.wake_here: Callable[[], None] | None = None
        settings = core.settings.webhooks
        self._limits = EndpointLimits(
            per_client=settings.endpoints_per_client,
            per_host=settings.endpoints_per_host,
            concurrency=settings.concurrency,
        )
        # Connections of its own: kept for the next event, and as many as the lane may need.
        self.client = GuardedClient(
            Reach(private=core.settings.allow_private_addresses),
            per_host=settings.connections_per_host,
            in_all=settings.slots,
            kept_s=settings.kept_connection_s,
        )
        self.reader = FactReader(facts=log.facts_at, rooms=log.rooms)
        self.queue = DeliveryQueue(core.database, drain_per_s=settings.drain_per_s)
        self.sender = WebhookSender(
            outgoing=Outgoing(core.database),
            reader=self.reader,
            client=self.client,
            box=core.box,
            clock=utc_now,
        )
        self.headers = {CHANNEL: headers_of}
        self.open_endpoints = core.open(self.endpoints)
        self.open_replays = core.open(self.replays)
        self.open_deliveries = core.open(self.deliveries)
        self.open_failures = core.open(lambda work: FailureService(work.session, work))
        self.notes = TargetNotes(core.open(self.targets), CHANNEL)

    def endpoints(self, work: UnitOfWork) -> EndpointService:
        """Build the service within somebody's unit of work."""
        return EndpointService(
            endpoints=EndpointRepository(work.session),
            deliveries=self.deliveries(work),
            targets=self.targets(work),
            box=self._core.box,
            recorder=work,
            check_url=self._core.outside.check,
            limits=self._limits,
        )

    def replays(self, work: UnitOfWork) -> Replays:
        """Build the service within somebody's unit of work: `forward` is there."""

        async def later(replaying: Replaying) -> None:
            await self.replay_later(work, replaying)

        return Replays(
            service=self.endpoints(work),
            endpoints=EndpointRepository(work.session),
            deliveries=self.deliveries(work),
            targets=self.targets(work),
            planner=self.planner(work),
            recorder=work,
            later=later,
        )

    def planner(self, work: UnitOfWork) -> EventPlanner:
        return EventPlanner(
            endpoints=EndpointRepository(work.session), deliveries=self.deliveries(work)
        )

    def deliveries(self, work: UnitOfWork) -> DeliveryService:
        return DeliveryService(
            deliveries=DeliveryRepository(work.session),
            box=self._core.box,
            recorder=work,
            clock=utc_now,
            wake=self.wake,
        )

    async def replay_later(self, work: UnitOfWork, replaying: Replaying) -> None:
        """Have a job go on with a replay."""
        payload = {
            "endpoint_id": str(replaying.endpoint_id),
            "after": replaying.after,
            "upto": replaying.upto,
            "only_lost": replaying.only_lost,
            "by": replaying.by,
            "asked_at": replaying.asked_at.isoformat(),
        }
        await jobs.plan(
            work.session,
            REPLAY_EVENTS,
            dedupe=f"{replaying.endpoint_id}:{replaying.after}:{replaying.upto}",
            client_id=replaying.client_id,
            payload=orjson.dumps(payload).decode(),
        )
        work.after_commit(lambda: self._core.doorbell.ring([REPLAY_EVENTS.name]))

    async def plan(self, work: UnitOfWork, rows: Sequence[OutboxRow]) -> None:
        """Make events and deliveries of facts, in the transaction that takes them."""
        await self.planner(work).plan(rows)

    def wake(self) -> None:
        """Have workers look for deliveries now: this process's own lane, if it has one."""
        if self.wake_here is not None:
            self.wake_here()
        else:
            self._core.doorbell.ring([SEND_DELIVERIES])

    def targets(self, work: UnitOfWork) -> TargetService:
        async def announce(
            channel: str, client_id: UUID, target_id: UUID, told: str, change: Change
        ) -> None:
            if channel == CHANNEL:
                await self.endpoints(work).announce(
                    client_id, target_id, told, state=change.state, reason=change.reason
                )
                return
            # What has no provider is an address of its own, or the inboxes.
            provider = await ProviderRepository(work.session).find(client_id, target_id)
            if provider is not None:
                work.record(provider_fact(told, provider, state=change.state, reason=change.reason))

        return TargetService(
            deliveries=DeliveryRepository(work.session),
            recorder=work,
            wake=self.wake,
            announce=announce,
        )

    async def stop(self) -> None:
        """Let the connections go."""
        await self.client.close()


class _Targets(Protocol):
    async def failed(
        self, claim: Claim, channel: str, sent: Sent, *, is_flapping: bool, spread: float
    ) -> Change | None: ...

    async def succeeded(self, claim: Claim, channel: str) -> Change | None: ...


class TargetNotes:
    """Follows how well a channel's targets are, each change in a transaction of its own."""

    def __init__(self, open_targets: Open[_Targets], channel: str) -> None:
        self._open_targets = open_targets
        self.channel = channel
        # What was told of targets, since the process began.
        self.changes: Counter[str] = Counter()

    async def failed(self, claim: Claim, sent: Sent, *, is_flapping: bool) -> bool:
        async with self._open_targets() as targets:
            change = await targets.failed(
                claim,
                self.channel,
                sent,
                is_flapping=is_flapping,
                spread=random.random(),  # noqa: S311 - jitter
            )
        if change is None:
            return False
        self._tell(claim, change)
        return change.state in ("paused", "disabled") or change.open_s is not None

    async def succeeded(self, claim: Claim) -> None:
        async with self._open_targets() as targets:
            change = await targets.succeeded(claim, self.channel)
        if change is not None:
            self._tell(claim, change)

    async def lost(self, claim: Claim, sent: Sent) -> None:
        """Nobody waits for the end of an event's delivery."""

    async def pass_on(self) -> bool:
        """Leave what waits where it is: an endpoint's deliveries are for it alone."""
        return False

    async def gave_back(self, target_id: UUID) -> None:
        """Leave what waits where it is: an endpoint's deliveries are for it alone."""

    def _tell(self, claim: Claim, change: Change) -> None:
        for told in change.told:
            self.changes[told] += 1
            log.warning(
                "delivery_target_changed",
                now=told,
                channel=self.channel,
                target_id=str(claim.target_id),
                client_id=str(claim.client_id),
                reason=change.reason,
                failures=change.failures,
            )
