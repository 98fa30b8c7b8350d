"""Inbound webhooks: the door's reception, what applications do with sources, and the runner."""

from typing import Any
from uuid import UUID

import orjson

from chatserver.assistant.generation.schemas import Ask
from chatserver.infra import jobs
from chatserver.infra.job_kinds import RUN_INBOUND
from chatserver.infra.token_buckets import Policy
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import RateLimitedError
from chatserver.kernel.principal import ALL_SCOPES, Caller, Principal
from chatserver.notifications.requests.schemas import SendNotification
from chatserver.rooms.service import RoomService
from chatserver.transport.registry import parse
from chatserver.users.service import UserService
from chatserver.webhooks.endpoints.repository import EndpointRepository
from chatserver.webhooks.sources.arrivals import Arrivals, EventRepository
from chatserver.webhooks.sources.effects import Effects
from chatserver.webhooks.sources.history import HistoryService
from chatserver.webhooks.sources.parts import Parts, Posts
from chatserver.webhooks.sources.reception import Reception
from chatserver.webhooks.sources.repository import SourceLookup, SourceRepository
from chatserver.webhooks.sources.running import Runner
from chatserver.webhooks.sources.service import RuleCheck, SourceService
from chatserver.wiring.answers import AnswerWiring
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
            arrivals=Arrivals(core.database),
            open_sources=core.open(lambda work: SourceRepository(work.session)),
            ring=lambda: core.doorbell.ring([RUN_INBOUND.name]),
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
            rules=self._rules(work),
        )

    def _history(self, work: UnitOfWork) -> HistoryService:
        return HistoryService(
            sources=SourceRepository(work.session),
            events=EventRepository(work.session),
            recorder=work,
            box=self._core.box,
            clock=utc_now,
            rules=self._rules(work),
            plan=self._planner(work),
            public_url=self._core.settings.public_url,
        )

    def _rules(self, work: UnitOfWork) -> RuleCheck:
        async def knows(client_id: UUID, endpoint_id: UUID) -> bool:
            forward = self._parts.forward
            return forward is not None and await forward.knows(work, client_id, endpoint_id)

        return RuleCheck(self._parts, knows)

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

    async def knows(self, work: UnitOfWork, client_id: UUID, endpoint_id: UUID) -> bool:
        found = await EndpointRepository(work.session).find(client_id, endpoint_id)
        return found is not None


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


class Asker:
    """The action `ask_assistant`: question and pending answer, in the effect's own transaction."""

    def __init__(self, assistant: AnswerWiring, people: Builder[UserService]) -> None:
        self._assistant = assistant
        self._people = people

    async def __call__(
        self,
        work: UnitOfWork,
        *,
        client_id: UUID,
        room_id: UUID,
        sender_id: str,
        content: str,
        bot_id: str | None,
        client_msg_id: str,
        origin: dict[str, Any],
    ) -> UUID:
        members = {"room_id": str(room_id), "content": content, "bot_id": bot_id}
        command = parse(Ask, {**members, "client_msg_id": client_msg_id})
        assert isinstance(command, Ask)  # noqa: S101 - `parse` gives what it is asked for
        person = await self._people(work).find_one(client_id, sender_id, field="sender_id")
        asker = Principal(
            caller=Caller.USER,
            client_id=client_id,
            user_id=person,
            external_id=sender_id,
            scopes=ALL_SCOPES,
        )
        asked = await self._assistant.answers(work).ask(
            asker, command, metadata={"webhook": origin}
        )
        return asked.message_id


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
