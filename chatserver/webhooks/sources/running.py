"""Runs the rules over what came; the worker calls it, and may die anywhere.

The plan of an event is committed before anything is done, with all values filled in, so that a
repeat does what the first try did.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from chatserver.infra.redaction import redact_text
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.errors import DomainError, ErrorKind
from chatserver.kernel.opening import Open
from chatserver.rooms.errors import RoomNotFoundError
from chatserver.webhooks.sources.arrivals import EventRepository
from chatserver.webhooks.sources.documents import document_of
from chatserver.webhooks.sources.effects import Begun, Effects
from chatserver.webhooks.sources.models import InboundEffect, InboundEvent
from chatserver.webhooks.sources.rules import Planned, stored, try_rules

log = structlog.get_logger()

# With pauses that double from 2 s on: half an hour, then an event is dead.
MOST_ATTEMPTS: Final = 11
LONGEST_ERROR: Final = 1000
# A body of more bytes is looked at in a thread.
LARGE: Final = 16 * 1024
# Refusals that may be none later: a part is away, or the room of an earlier event is not there yet.
_PASSING: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.RATE_LIMITED, ErrorKind.IN_PROGRESS})


class WaitingError(Exception):
    """Some of an event's effects can't be done now; the job comes again."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    is_done: bool = False
    waiting: Exception | None = None

    @property
    def name(self) -> str:
        if self.waiting is not None:
            return "waiting"
        return "done" if self.is_done else "failed"


class Runner:
    def __init__(self, *, open_work: Open[UnitOfWork], effects: Effects) -> None:
        self._open_work = open_work
        self._effects = effects
        # Actions by how they came out, since the process began.
        self.outcomes: Counter[tuple[str, str]] = Counter()

    async def run(self, event_id: UUID) -> None:
        """Do what is left to do for an event; nothing when it has ended.

        Raises:
            WaitingError: something has to be tried again later.
        """
        begun = await self._begin(event_id)
        if begun is None:
            return
        effects = begun.effects if begun.event.planned_at is not None else await self._plan(begun)
        waiting: Exception | None = None
        failed: set[str] = set()
        held: set[str] = set()
        for effect in effects:
            if effect.state in {"failed", "skipped"}:
                failed.add(effect.rule)
            if effect.state != "planned" or effect.rule in held:
                continue
            if effect.rule in failed:
                await self._effects.note(effect, "skipped", "an action before it failed")
                self.outcomes[effect.action, "skipped"] += 1
                continue
            outcome = await self._try(begun, effect)
            self.outcomes[effect.action, outcome.name] += 1
            if outcome.waiting is not None:
                waiting = outcome.waiting
                held.add(effect.rule)
            elif not outcome.is_done:
                failed.add(effect.rule)
            elif effect.action == "create_room":
                _settle(effects, effect)
        if waiting is not None:
            await self._wait(event_id, waiting)
            raise WaitingError(_said(waiting))
        await self._end(event_id)

    async def _try(self, begun: Begun, effect: InboundEffect) -> "_Outcome":
        is_last = begun.event.attempts >= MOST_ATTEMPTS
        try:
            if await self._effects.do(begun, effect):
                return _Outcome(is_done=True)
        except DomainError as error:
            if _is_passing(error) and not is_last:
                return _Outcome(waiting=error)
            await self._effects.note(effect, "failed", _said(error))
            return _Outcome()
        except Exception as error:
            log.exception("inbound_effect_failed", event_id=str(effect.event_id), rule=effect.rule)
            if not is_last:
                return _Outcome(waiting=error)
            await self._effects.note(effect, "failed", _said(error))
            return _Outcome()
        # Somebody else ended it just now: look again at all of them, later.
        return _Outcome(waiting=WaitingError("another worker is at it"))

    async def _begin(self, event_id: UUID) -> Begun | None:
        async with self._open_work() as work:
            events = EventRepository(work.session)
            event = await events.lock(event_id)
            if event is None or event.status not in {"received", "running"}:
                return None
            event.attempts += 1
            event.status = "running"
            if event.attempts > MOST_ATTEMPTS:
                # Nobody came to the end of it: whatever it does, it kills its worker.
                event.status, event.error = "dead", "It was begun too often and never ended."
                event.ended_at = events.moment()
                return None
            source, client_slug = await events.source_of(event)
            await events.flush()
            effects = await events.effects(event_id) if event.planned_at is not None else []
        return Begun(event, source, client_slug, effects)

    async def _plan(self, begun: Begun) -> list[InboundEffect]:
        """Commit what is to be done, and give it."""
        event = begun.event
        document = document_of(event, begun.source.slug)
        rules = stored(begun.source.rules)
        if len(event.body) > LARGE:
            # Off the loop: a megabyte of JSON under fifty rules takes a while.
            tried = await asyncio.to_thread(try_rules, rules, document)
        else:
            tried = try_rules(rules, document)
        planned = [action for rule in tried for action in rule.actions]
        async with self._open_work() as work:
            events = EventRepository(work.session)
            current = await events.lock(event.id)
            # Else it is planned already, or the person whom it spoke of was erased meanwhile.
            if current is not None and current.planned_at is None and current.body == event.body:
                await events.plan([_row(event, turn, it) for turn, it in enumerate(planned)])
                current.planned_at = events.moment()
            return await events.effects(event.id)

    async def _wait(self, event_id: UUID, error: Exception) -> None:
        async with self._open_work() as work:
            event = await EventRepository(work.session).lock(event_id)
            if event is not None:
                event.error = _said(error)

    async def _end(self, event_id: UUID) -> None:
        async with self._open_work() as work:
            events = EventRepository(work.session)
            event = await events.lock(event_id)
            if event is None or event.status != "running":
                return
            effects = await events.effects(event_id)
            failed = next((each for each in effects if each.state == "failed"), None)
            event.status = "ignored" if not effects else "done" if failed is None else "dead"
            event.error = (
                None if failed is None else f"{failed.rule}: {failed.error}"[:LONGEST_ERROR]
            )
            event.ended_at = events.moment()


def _settle(effects: Sequence[InboundEffect], made: InboundEffect) -> None:
    # As the transaction that made the room did in the rows.
    for each in effects:
        name = each.arguments.get("room_external_id")
        if name is not None and each.room_id is None and name == made.arguments["external_id"]:
            each.room_id = made.room_id


def _row(event: InboundEvent, turn: int, action: Planned) -> dict[str, Any]:
    return {
        "event_id": event.id,
        "client_id": event.client_id,
        "rule": action.rule,
        "place": action.place,
        "turn": turn,
        "action": action.action,
        "arguments": action.arguments,
        "state": "planned" if action.problem is None else "failed",
        "error": action.problem,
        "result": {},
    }


def _is_passing(error: DomainError) -> bool:
    return error.kind in _PASSING or isinstance(error, RoomNotFoundError)


def _said(error: Exception) -> str:
    code = f"{error.code}: " if isinstance(error, DomainError) else f"{type(error).__name__}: "
    return redact_text(f"{code}{error}").replace("\0", "")[:LONGEST_ERROR]
