"""What came by a source: looking at it, replaying it, and trying rules on it."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from chatserver.infra.secrets import SecretBox
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.clock import Clock
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.webhooks.sources.arrivals import EventRepository
from chatserver.webhooks.sources.claims import Incoming, Scheme, Signing
from chatserver.webhooks.sources.diagnosis import diagnose
from chatserver.webhooks.sources.documents import document_of
from chatserver.webhooks.sources.errors import InboundEventNotFoundError, SourceNotFoundError
from chatserver.webhooks.sources.models import (
    InboundEvent,
    InboundSource,
    place_of_secret,
)
from chatserver.webhooks.sources.payloads import Document, payload_of
from chatserver.webhooks.sources.repository import SourceRepository
from chatserver.webhooks.sources.rules import Tried, stored, try_rules
from chatserver.webhooks.sources.schemas import (
    EffectOut,
    EventDetails,
    EventList,
    EventOut,
    EventPage,
    EventPath,
    PlannedOut,
    RefusalList,
    RefusalOut,
    ReplayDead,
    Replayed,
    RuleTried,
    SourcePath,
    TrySource,
    Verification,
)
from chatserver.webhooks.sources.schemas import Tried as TriedOut
from chatserver.webhooks.sources.service import RuleCheck, path_of
from chatserver.webhooks.sources.signatures import key_of, verify


class HistoryService:
    """What came, in one transaction. `plan` has an event's rules run again, after the commit."""

    def __init__(
        self,
        *,
        sources: SourceRepository,
        events: EventRepository,
        recorder: Recorder,
        box: SecretBox,
        clock: Clock,
        rules: RuleCheck,
        plan: Callable[[UUID, UUID], Awaitable[None]],
        public_url: str | None,
    ) -> None:
        self._sources = sources
        self._events = events
        self._recorder = recorder
        self._box = box
        self._clock = clock
        self._rules = rules
        self._plan = plan
        self._public_url = public_url

    async def list_events(self, principal: Principal, command: EventList) -> EventPage:
        await self._must_exist(principal, command.id)
        found = await self._events.page(
            command.id, status=command.status, before=command.cursor, limit=command.limit + 1
        )
        items = [_event_out(event, size) for event, size in found[: command.limit]]
        has_more = len(found) > command.limit
        return EventPage(items=items, next_cursor=str(items[-1].id) if has_more else None)

    async def get_event(self, principal: Principal, command: EventPath) -> EventDetails:
        event = await self._events.find(principal.client_id, command.id, command.event_id)
        if event is None:
            raise InboundEventNotFoundError
        effects = await self._events.effects(event.id)
        return EventDetails(
            **_event_out(event, len(event.body)).model_dump(),
            headers=event.headers,
            body=_as_text(event.body),
            payload=payload_of(event.headers, event.body),
            secret_hint=event.secret_hint,
            effects=[
                EffectOut(
                    rule=it.rule,
                    index=it.place,
                    action=it.action,
                    state=it.state,
                    arguments=it.arguments,
                    result=it.result,
                    error=it.error,
                    done_at=it.done_at,
                )
                for it in effects
            ],
        )

    async def replay(self, principal: Principal, command: EventPath) -> Replayed:
        """Run the rules as they are now over an event again; what was done is not done again.

        Raises:
            InboundEventNotFoundError: there is none.
        """
        if await self._events.find(principal.client_id, command.id, command.event_id) is None:
            raise InboundEventNotFoundError
        event = await self._events.ended(principal.client_id, command.id, command.event_id)
        if event is None:
            return Replayed(replayed=0)
        await self._again(event)
        self._recorder.audit(
            principal.client_id, principal, "source.replay", f"inbound_event:{event.id}"
        )
        return Replayed(replayed=1)

    async def replay_dead(self, principal: Principal, command: ReplayDead) -> Replayed:
        """Replay dead events, the oldest first.

        Raises:
            SourceNotFoundError: there is no such source.
        """
        await self._must_exist(principal, command.id)
        dead = await self._events.dead(command.id, command.limit)
        for event in dead:
            await self._again(event)
        self._recorder.audit(
            principal.client_id,
            principal,
            "source.replay_dead",
            f"source:{command.id}",
            count=len(dead),
        )
        return Replayed(replayed=len(dead))

    async def refusals(self, principal: Principal, command: SourcePath) -> RefusalList:
        """Tell why requests were refused lately, the newest first."""
        await self._must_exist(principal, command.id)
        found = await self._sources.refusals(command.id)
        return RefusalList(
            items=[
                RefusalOut(
                    at=it.at,
                    reason=it.reason,
                    explanation=it.explanation,
                    details=it.details,
                    count=it.count,
                )
                for it in found
            ]
        )

    async def test(self, principal: Principal, command: TrySource) -> TriedOut:
        """Try rules on an event or on a request that is made up; nothing is done.

        Raises:
            SourceNotFoundError, InboundEventNotFoundError: there is none to try.
            PayloadInvalidError: a rule can't be done here.
        """
        source = await self._sources.find(principal.client_id, command.id)
        if source is None:
            raise SourceNotFoundError
        rules = stored(source.rules)
        if command.rules is not None:
            await self._rules(principal.client_id, command.rules)
            rules = command.rules
        verification = None
        event: InboundEvent | None = None
        if command.headers is not None or command.body is not None:
            incoming = Incoming(
                command.headers or {},
                (command.body or "").encode(),
                source.url or f"{self._public_url or ''}{path_of(principal, source)}",
            )
            verification = await self._verified(source, incoming)
            payload = payload_of(incoming.headers, incoming.body)
            document = Document(payload, incoming.headers, _sample(source))
        else:
            event = (
                await self._events.latest(source.id)
                if command.event_id is None
                else await self._events.find(principal.client_id, source.id, command.event_id)
            )
            if event is None:
                raise InboundEventNotFoundError
            document = document_of(event, source.slug)
        tried = await asyncio.to_thread(try_rules, rules, document)
        return TriedOut(
            event_id=None if event is None else event.id,
            verification=verification,
            payload=document.payload,
            rules=[_tried_out(each) for each in tried],
        )

    async def _verified(self, source: InboundSource, incoming: Incoming) -> Verification:
        scheme, signing = Scheme(source.scheme), Signing.of(source.signing)
        texts = [
            self._box.open(it.sealed, bound_to=place_of_secret(it.client_id, it.id)).decode()
            for it in await self._sources.secrets([source.id])
        ]
        verdict = verify(
            scheme,
            signing,
            [key_of(scheme, signing, secret) for secret in texts],
            incoming,
            now=self._clock().timestamp(),
            tolerance_s=source.tolerance_s,
        )
        if verdict.is_good:
            return Verification(
                ok=True, reason=None, explanation="The signature is right.", details={}
            )
        found = await asyncio.to_thread(
            lambda: diagnose(
                scheme,
                signing,
                incoming,
                verdict,
                live=texts,
                ended=[],
                tolerance_s=source.tolerance_s,
            )
        )
        return Verification(
            ok=False, reason=found.reason, explanation=found.explanation, details=found.details
        )

    async def _again(self, event: InboundEvent) -> None:
        await self._events.forget_undone(event.id)
        event.status, event.attempts, event.error = "received", 0, None
        event.planned_at = event.ended_at = None
        event.replays += 1
        await self._events.flush()
        await self._plan(event.client_id, event.id)

    async def _must_exist(self, principal: Principal, source_id: UUID) -> None:
        if await self._sources.find(principal.client_id, source_id) is None:
            raise SourceNotFoundError


def _event_out(event: InboundEvent, size: int) -> EventOut:
    return EventOut(
        id=event.id,
        source_id=event.source_id,
        external_id=event.external_id,
        received_at=event.received_at,
        status=event.status,
        attempts=event.attempts,
        replays=event.replays,
        hops=event.hops,
        size=size,
        error=event.error,
        ended_at=event.ended_at,
    )


def _tried_out(tried: Tried) -> RuleTried:
    return RuleTried(
        name=tried.rule.name,
        matched=tried.unmet is None,
        unmet=tried.unmet,
        actions=[
            PlannedOut(index=it.place, action=it.action, arguments=it.arguments, problem=it.problem)
            for it in tried.actions
        ],
    )


def _sample(source: InboundSource) -> dict[str, str]:
    name = str(uuid7())
    return {"event.id": name, "event.external_id": name, "source.slug": source.slug}


def _as_text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
