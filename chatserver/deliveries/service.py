"""Deliveries: planning them, how they stand, and replaying them."""

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from chatserver.deliveries.errors import (
    DeliveryCursorInvalidError,
    DeliveryNotFoundError,
    DeliveryNotReplayableError,
    DeliveryUnsettledError,
)
from chatserver.deliveries.models import Attempt, AttemptPart, Delivery, Planned
from chatserver.deliveries.policies import (
    DEADLINE_S,
    TERMINAL,
    WAITING,
    part_out,
)
from chatserver.deliveries.repository import DeliveryRepository
from chatserver.deliveries.schemas import (
    MOST_DAYS,
    AttemptOut,
    DeliveryOut,
    DeliveryPage,
    DeliveryRef,
    Explained,
    GetLedger,
    Ledger,
    LedgerLine,
    Moment,
)
from chatserver.deliveries.sentences import explain
from chatserver.infra.audit import actor_name
from chatserver.infra.secrets import SecretBox, UnreadableSecretError
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal

REPLAYED: Final = 1000
# What has come to an end without having arrived.
LOST: Final = ["failed", "expired", "cancelled", "bounced", "suppressed"]
# What goes with every request of a channel, so that an attempt can be shown as it was sent.
Headers = Callable[[Attempt, Delivery], dict[str, str]]


def place(client_id: UUID, delivery_id: UUID, generation: int, no: int) -> str:
    """Name what a sealed response is bound to."""
    return f"attempt:{client_id}:{delivery_id}:{generation}:{no}"


class DeliveryService:
    """`wake` tells the workers to look."""

    def __init__(
        self,
        *,
        deliveries: DeliveryRepository,
        box: SecretBox,
        recorder: Recorder,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._deliveries = deliveries
        self._box = box
        self._recorder = recorder
        self._clock = clock
        self._wake = wake

    async def plan(
        self,
        planned: Sequence[Planned],
        *,
        channel: str,
        priority: int = 1,
        deadline_s: float = DEADLINE_S,
    ) -> int:
        """Make deliveries in this transaction, each once per target and source; how many are new.

        They are counted as promised by the day that their ids hold.
        """
        if not planned:
            return 0
        made = await self._deliveries.plan(
            planned, channel=channel, priority=priority, deadline_s=deadline_s
        )
        counts = Counter((client_id, day_of(delivery_id)) for delivery_id, client_id in made)
        if counts:
            await self._deliveries.promise(channel, dict(counts))
            self._recorder.after_commit(self._wake)
        return len(made)

    async def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Make deliveries as they are described, settled ones too, and count them as promised.

        Each has `id`, `client_id`, `channel`, `target_id`, `source_id`, `priority`, `state`,
        `reason`, `next_at`, `expires_at` and `is_settled`. Whoever calls wakes the workers.
        """
        await self._deliveries.keep(rows)
        counts = Counter((row["channel"], row["client_id"], day_of(row["id"])) for row in rows)
        for channel in sorted({channel for channel, _, _ in counts}):
            await self._deliveries.promise(
                channel,
                {(client, day): n for (of, client, day), n in counts.items() if of == channel},
            )

    async def now(self) -> datetime:
        """Tell PostgreSQL's time."""
        return await self._deliveries.now()

    async def planned(self, target_id: UUID, source_seq: int) -> UUID | None:
        """Find the delivery of a source to a target."""
        return await self._deliveries.of_source(target_id, source_seq)

    async def get(
        self, principal: Principal, command: DeliveryRef, headers: Headers
    ) -> DeliveryOut:
        """Show a delivery with every try.

        Raises:
            DeliveryNotFoundError: there is none of the client.
        """
        delivery = await self._must(principal, command)
        attempts = await self._deliveries.attempts(delivery.id)
        parts: dict[tuple[int, int], list[AttemptPart]] = {}
        for part in await self._deliveries.parts(delivery.id):
            parts.setdefault((part.generation, part.no), []).append(part)
        shown = []
        for each in attempts:
            of_try = parts.get((each.generation, each.no))
            if of_try is None:
                shown.append(self._attempt(each, delivery, headers))
            else:
                shown += [part_out(part, each.trigger) for part in of_try]
        return delivery_out(delivery, attempts=shown)

    async def explain(self, principal: Principal, command: DeliveryRef) -> Explained:
        """Say how a delivery stands.

        Raises:
            DeliveryNotFoundError: there is none of the client.
        """
        delivery = await self._must(principal, command)
        attempts = [
            each
            for each in await self._deliveries.attempts(delivery.id)
            if each.generation == delivery.generation
        ]
        targets = await self._deliveries.targets(delivery.client_id, [delivery.target_id])
        target = targets.get(delivery.target_id)
        said = explain(
            channel=delivery.channel,
            state=delivery.state,
            reason=delivery.reason,
            target_state=target.state if target else None,
            attempts=[(each.outcome, each.error, each.status) for each in attempts],
        )
        next_at = delivery.next_at if delivery.state in WAITING else None
        if next_at is not None and target is not None and target.open_until is not None:
            next_at = max(next_at, target.open_until)
        timeline = [Moment(at=delivery.created_at, what="promised")]
        timeline += [Moment(at=each.started_at, what=_happened(each)) for each in attempts]
        if delivery.settled_at is not None:
            is_said = delivery.reason in (None, delivery.state)
            what = delivery.state if is_said else f"{delivery.state} ({delivery.reason})"
            timeline.append(Moment(at=delivery.settled_at, what=what))
        return Explained(
            id=delivery.id,
            state=delivery.state,
            sentence=said.sentence,
            fault=said.fault,
            next_at=next_at,
            timeline=timeline,
        )

    async def replay(self, principal: Principal, command: DeliveryRef) -> DeliveryOut:
        """Send a settled delivery again, under the same id, on a schedule of its own.

        One that waits is tried now, on the schedule that it has.

        Raises:
            DeliveryNotFoundError: there is none of the client.
            DeliveryUnsettledError: it is being sent just now.
            DeliveryNotReplayableError: it had no address or provider, or is in an inbox.
        """
        delivery = await self._must(principal, command)
        done = await self._deliveries.replay(
            principal.client_id,
            delivery.id,
            by=actor_name(principal),
            deadline_s=DEADLINE_S,
            settled=list(TERMINAL),
        )
        if not done and not await self._deliveries.hasten(principal.client_id, delivery.id):
            if delivery.state in TERMINAL:
                raise DeliveryNotReplayableError
            raise DeliveryUnsettledError
        self._recorder.audit(
            principal.client_id, principal, "delivery.replay", f"delivery:{delivery.id}"
        )
        self._recorder.after_commit(self._wake)
        return delivery_out(await self._must(principal, command))

    async def replay_range(
        self,
        client_id: UUID,
        target_id: UUID,
        *,
        by: str,
        after: int,
        upto: int,
        before: datetime,
        only_lost: bool,
    ) -> int:
        """Send what is settled of a range of a target's sources again; how many it were.

        What settled after `before` is left alone: asking twice replays once. The range must hold at
        most `REPLAYED` sources.
        """
        done = await self._deliveries.replay_since(
            client_id,
            target_id,
            after=after,
            upto=upto,
            before=before,
            by=by,
            deadline_s=DEADLINE_S,
            settled=LOST if only_lost else list(TERMINAL),
            limit=REPLAYED,
        )
        self._recorder.after_commit(self._wake)
        return done

    async def page(
        self,
        principal: Principal,
        target_id: UUID,
        *,
        state: str | None,
        cursor: str | None,
        limit: int,
    ) -> DeliveryPage:
        """Show a page of a target's deliveries, the newest first.

        Raises:
            DeliveryCursorInvalidError: the cursor was made up.
        """
        rows = await self._deliveries.page(
            principal.client_id, target_id, state=state, before=_read(cursor), limit=limit + 1
        )
        has_more = len(rows) > limit
        rows = rows[:limit]
        return DeliveryPage(
            items=[delivery_out(row) for row in rows],
            next_cursor=_cursor(rows[-1].source_seq) if has_more else None,
        )

    async def ledger(self, principal: Principal, command: GetLedger) -> Ledger:
        """Hold what was promised against what became of it.

        Raises:
            PayloadInvalidError: the days are the wrong way round, or more than 31.
        """
        today = self._clock().astimezone(UTC).date()
        last = command.to or today
        first = command.from_ or last - timedelta(days=MOST_DAYS - 1)
        if first > last:
            raise PayloadInvalidError.of("from", "must not be after to")
        if (last - first).days >= MOST_DAYS:
            raise PayloadInvalidError.of("from", f"must be within {MOST_DAYS} days before to")
        counted = await self._deliveries.counts(
            principal.client_id,
            first=first,
            last=last,
            low=first_id(first),
            high=first_id(last + timedelta(days=1)),
        )
        lines = [
            _line(channel, [each for each in counted if each[0] == channel])
            for channel in sorted({channel for channel, _, _ in counted})
        ]
        return Ledger(
            first_day=first,
            last_day=last,
            channels=lines,
            balanced=all(line.balanced for line in lines),
        )

    async def _must(self, principal: Principal, command: DeliveryRef) -> Delivery:
        found = await self._deliveries.find(principal.client_id, command.id)
        if found is None:
            raise DeliveryNotFoundError
        return found

    def _attempt(self, attempt: Attempt, delivery: Delivery, headers: Headers) -> AttemptOut:
        return AttemptOut(
            no=attempt.no,
            generation=attempt.generation,
            trigger=attempt.trigger,
            started_at=attempt.started_at,
            latency_ms=attempt.latency_ms,
            outcome=attempt.outcome,
            error=attempt.error,
            status=attempt.status,
            retry_after_s=attempt.retry_after_s,
            peer=attempt.peer,
            request=None
            if attempt.url is None
            else {
                "method": "POST",
                "url": attempt.url,
                "headers": headers(attempt, delivery),
                "body_bytes": attempt.body_bytes,
                "body_sha256": None if attempt.body_sha256 is None else attempt.body_sha256.hex(),
            },
            response=self._response(attempt),
        )

    def _response(self, attempt: Attempt) -> str | None:
        if attempt.response is None:
            return None
        bound_to = place(attempt.client_id, attempt.delivery_id, attempt.generation, attempt.no)
        try:
            return self._box.open(attempt.response, bound_to=bound_to).decode("utf-8", "replace")
        except UnreadableSecretError:
            return None


def delivery_out(row: Delivery, *, attempts: list[AttemptOut] | None = None) -> DeliveryOut:
    is_event = row.source_seq is not None
    return DeliveryOut(
        id=row.id,
        channel=row.channel,
        endpoint_id=row.target_id if is_event else None,
        event_id=row.source_id if is_event else None,
        event_seq=row.source_seq,
        state=row.state,
        reason=row.reason,
        generation=row.generation,
        tries=row.tries,
        next_at=row.next_at if row.state in WAITING else None,
        expires_at=row.expires_at,
        created_at=row.created_at,
        settled_at=row.settled_at,
        replayed_by=row.replayed_by,
        attempts=attempts,
    )


def _line(channel: str, counted: Sequence[tuple[str, str, int]]) -> LedgerLine:
    states = {state: n for _, state, n in counted}
    accepted = states.pop("promised", 0)
    settled = {state: states.get(state, 0) for state in TERMINAL}
    in_flight = sum(n for state, n in states.items() if state not in settled)
    return LedgerLine(
        channel=channel,
        accepted=accepted,
        states=settled,
        in_flight=in_flight,
        balanced=accepted == sum(settled.values()) + in_flight,
    )


def _happened(attempt: Attempt) -> str:
    how = attempt.error or attempt.outcome
    status = "" if attempt.status is None else f" {attempt.status}"
    return f"try {attempt.no} ({attempt.trigger}):{status} {how}"


def day_of(delivery_id: UUID) -> date:
    """Give the day that an id was made on: its first 48 bits are milliseconds."""
    return datetime.fromtimestamp((delivery_id.int >> 80) / 1000, UTC).date()


def first_id(day: date) -> UUID:
    """Give the least id of a day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return UUID(int=int(start.timestamp() * 1000) << 80)


def _cursor(before: int | None) -> str:
    # Not sealed: it says where in the own list to go on, and lets nobody see another's.
    return base64.urlsafe_b64encode(b"d%d" % (before or 0)).decode().rstrip("=")


def _read(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        number = int(text.removeprefix("d"))
    except ValueError as error:
        raise DeliveryCursorInvalidError from error
    if not text.startswith("d") or not 0 < number < 1 << 63:
        raise DeliveryCursorInvalidError
    return number
