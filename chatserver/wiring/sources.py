"""Inbound webhooks: the door's reception, what applications do with sources, and the runner."""

from typing import Any
from uuid import UUID

import orjson

from chatserver.infra import jobs
from chatserver.infra.job_kinds import RUN_INBOUND
from chatserver.infra.token_buckets import Policy
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import RateLimitedError
from chatserver.kernel.principal import Caller, Principal
from chatserver.notifications.requests.schemas import SendNotification
from chatserver.rooms.service import RoomService
from chatserver.transport.registry import parse
from chatserver.users.service import UserService
from chatserver.webhooks.sources.arrivals import EventRepository
from chatserver.webhooks.sources.effects import Effects
from chatserver.webhooks.sources.history import HistoryService
from chatserver.webhooks.sources.parts import Parts, Posts
from chatserver.webhooks.sources.reception import Inbox, Reception
from chatserver.webhooks.sources.repository import SourceLookup, SourceRepository
from chatserver.webhooks.sources.running import Runner
from chatserver.webhooks.sources.service import SourceService
from chatserver.wiring.core import Builder, Core
from chatserver.wiring.sending import Sending
from chatserver.wiring.webhooks import Webhooks


class Sources:
    """`rooms` and `people` build services within a unit of work, `posts` stores messages."""

    def __init__(
        self,
        core: Core,
        *,
        rooms: Builder[RoomService],
        people: Builder[UserService],
        posts: Posts,
        parts: Parts,
    ) -> None:
        self._core = core
        self._parts = parts
        self.open_sources = core.open(self._sources)
        self.open_history = core.open(self._history)
        self.reception = Reception(
            lookup=SourceLookup(core.database),
            open_inbox=core.open(self._inbox),
            box=core.box,
            count=self._count,
            clock=utc_now,
        )
        work = core.open(lambda within: within)
        self.runner = Runner(
            open_work=work,
            effects=Effects(open_work=work, rooms=rooms, people=people, posts=posts, parts=parts),
        )

    async def _count(self, policy: Policy, subject: str) -> None:
        if not self._core.settings.rate_limits_enabled:
            return
        limiter = self._core.limiter
        buckets = [limiter.bucket(policy, subject)]
        if limiter.take_now(buckets):
            return
        refusal = await limiter.take(buckets)
        if refusal is not None:
            again_in_ms = max(1, int(refusal.retry_after_s * 1000) + 1)
            raise RateLimitedError(retry_after_ms=again_in_ms, policy=policy.name)

    def _sources(self, work: UnitOfWork) -> SourceService:
        return SourceService(
            sources=SourceRepository(work.session),
            recorder=work,
            box=self._core.box,
            parts=self._parts,
        )

    def _history(self, work: UnitOfWork) -> HistoryService:
        return HistoryService(
            sources=SourceRepository(work.session),
            events=EventRepository(work.session),
            recorder=work,
            box=self._core.box,
            clock=utc_now,
            parts=self._parts,
            plan=self._planner(work),
            public_url=self._core.settings.public_url,
        )

    def _inbox(self, work: UnitOfWork) -> Inbox:
        return Inbox(
            sources=SourceRepository(work.session),
            events=EventRepository(work.session),
            plan=self._planner(work),
        )

    def _planner(self, work: UnitOfWork) -> "_Planner":
        return _Planner(self._core, work)


class Forwarder:
    """The action `forward`: a delivery to an endpoint, in the effect's own transaction."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def __call__(
        self,
        work: UnitOfWork,
        *,
        client_id: UUID,
        endpoint_id: UUID,
        event_id: UUID,
        type: str,  # noqa: A002 - the wire's own name
        data: dict[str, Any],
        hops: int,
    ) -> UUID:
        return await self._webhooks.replays(work).forward(
            client_id=client_id,
            endpoint_id=endpoint_id,
            event_id=event_id,
            type=type,
            data=data,
            hops=hops,
        )


class Notifier:
    """The action `notify`: what `POST /notifications` does, in the effect's own transaction."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def __call__(
        self, work: UnitOfWork, *, client_id: UUID, key: UUID, notification: dict[str, Any]
    ) -> UUID:
        del key  # The effect's note commits with the notification: that is what makes it one.
        command = parse(SendNotification, notification)
        assert isinstance(command, SendNotification)  # noqa: S101 - `parse` gives what it is asked
        principal = Principal(caller=Caller.MASTER, client_id=client_id)
        sent = await self._sending.requests(work).send(principal, command)
        return sent.id


class _Planner:
    """Has an event's rules run: a job of the same transaction, and a ring behind it."""

    def __init__(self, core: Core, work: UnitOfWork) -> None:
        self._core = core
        self._work = work

    async def __call__(self, client_id: UUID, event_id: UUID) -> None:
        await jobs.plan(
            self._work.session,
            RUN_INBOUND,
            dedupe=str(event_id),
            client_id=client_id,
            payload=orjson.dumps({"event_id": str(event_id)}).decode(),
        )
        self._work.after_commit(self._ring)

    def _ring(self) -> None:
        self._core.doorbell.ring([RUN_INBOUND.name])
