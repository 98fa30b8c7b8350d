"""Many deliveries at once: lists, figures, exports; cancelling and replaying by a filter."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, timedelta
from typing import Any, Final
from uuid import UUID

import orjson

from chatserver.deliveries.policies import DEADLINE_S, TERMINAL
from chatserver.deliveries.schemas import (
    MOST_DAYS,
    Analytics,
    AnalyticsLine,
    CancelDeliveries,
    DeliveryFilter,
    DeliveryOut,
    DeliveryPage,
    ExportDeliveries,
    GetAnalytics,
    ListAllDeliveries,
    ManyDone,
    Percentiles,
    ReplayDeliveries,
)
from chatserver.deliveries.selection import SelectionRepository, whole_days
from chatserver.deliveries.service import delivery_out
from chatserver.infra.audit import actor_name
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.clock import Clock, rfc3339
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Lines, Table

SLICE: Final = 1000
DAYS: Final = 7
COLUMNS: Final = (
    *("id", "channel", "state", "reason", "user_id", "notification_id", "event_id", "provider_id"),
    *("generation", "tries", "created_at", "expires_at", "settled_at"),
)
_GOOD: Final = frozenset({"accepted", "delivered"})
_BAD: Final = frozenset({"bounced", "failed", "expired"})


class ManyService:
    """`wake` tells the workers to look, at every channel."""

    def __init__(
        self,
        *,
        selection: SelectionRepository,
        recorder: Recorder,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._selection = selection
        self._recorder = recorder
        self._clock = clock
        self._wake = wake

    async def page(self, principal: Principal, command: ListAllDeliveries) -> DeliveryPage:
        rows = await self._selection.page(
            principal.client_id, command, before=command.cursor, limit=command.limit + 1
        )
        has_more = len(rows) > command.limit
        items: list[DeliveryOut] = [delivery_out(row) for row in rows[: command.limit]]
        return DeliveryPage(items=items, next_cursor=str(items[-1].id) if has_more else None)

    async def cancel(self, principal: Principal, command: CancelDeliveries) -> ManyDone:
        """Cancel what waits. What is being sent just now is not stopped."""
        count = await self._selection.cancel(principal.client_id, command, limit=SLICE)
        self._note(principal, "delivery.cancel_many", command, count)
        return ManyDone(count=count, more=count == SLICE)

    async def replay(self, principal: Principal, command: ReplayDeliveries) -> ManyDone:
        """Send what has ended again, each under its id."""
        before = command.before or await self._selection.now()
        count = await self._selection.replay(
            principal.client_id,
            command,
            states=command.states,
            before=before,
            by=actor_name(principal),
            deadline_s=DEADLINE_S,
            limit=SLICE,
        )
        self._note(principal, "delivery.replay_many", command, count)
        self._recorder.after_commit(self._wake)
        return ManyDone(count=count, more=count == SLICE, before=before)

    async def analytics(self, principal: Principal, command: GetAnalytics) -> Analytics:
        """Count deliveries by day, channel and provider.

        Raises:
            PayloadInvalidError: the days are the wrong way round, or more than 31.
        """
        last = command.to or self._clock().astimezone(UTC).date()
        first = command.from_ or last - timedelta(days=DAYS - 1)
        if first > last:
            raise PayloadInvalidError.of("from", "must not be after to")
        if (last - first).days >= MOST_DAYS:
            raise PayloadInvalidError.of("from", f"must be within {MOST_DAYS} days before to")
        start, end = whole_days(first, last)
        wanted = DeliveryFilter.model_validate(
            {
                "from": start,
                "to": end,
                "channel": command.channel,
                "provider_id": command.provider_id,
            }
        )
        client_id = principal.client_id
        counted: dict[tuple[date, str, UUID | None], dict[str, int]] = {}
        for row in await self._selection.states(client_id, wanted):
            counted.setdefault(_place(row), {})[row.state] = row.n
        taken = {_place(row): row for row in await self._selection.taken(client_id, wanted)}
        tries = {_place(row): row for row in await self._selection.tries(client_id, wanted)}
        items = [
            _line(place, states, taken.get(place), tries.get(place))
            for place, states in counted.items()
        ]
        # What another provider tried before it was handed over has its line, too.
        items += [
            _line(place, {}, None, row) for place, row in tries.items() if place not in counted
        ]
        items.sort(key=lambda it: (it.day, it.channel, str(it.provider_id)))
        return Analytics(first_day=first, last_day=last, items=items)

    def _note(self, principal: Principal, action: str, wanted: DeliveryFilter, count: int) -> None:
        self._recorder.audit(
            principal.client_id,
            principal,
            action,
            "deliveries",
            count=count,
            filter=wanted.model_dump(mode="json", by_alias=True, exclude_none=True),
        )


class DeliveryExporter:
    """Reads deliveries out, the oldest first, a page in each transaction."""

    def __init__(self, open_selection: Open[SelectionRepository]) -> None:
        self._open_selection = open_selection

    async def export(self, principal: Principal, command: ExportDeliveries) -> Lines:
        if command.format == "csv":
            return Table.of(self._table(principal.client_id, command))
        return Lines.of(self._lines(principal.client_id, command))

    async def _lines(self, client_id: UUID, command: ExportDeliveries) -> AsyncIterator[bytes]:
        async for rows in self._pages(client_id, command):
            yield b"".join(orjson.dumps(members(row)) + b"\n" for row in rows)

    async def _table(self, client_id: UUID, command: ExportDeliveries) -> AsyncIterator[bytes]:
        yield _csv([COLUMNS])
        async for rows in self._pages(client_id, command):
            yield table_of([members(row) for row in rows])

    async def _pages(
        self, client_id: UUID, command: ExportDeliveries
    ) -> AsyncIterator[Sequence[Any]]:
        after = UUID(int=0)
        while True:
            async with self._open_selection() as selection:
                rows = await selection.onwards(client_id, command, after=after, limit=SLICE)
            if rows:
                yield rows
            if len(rows) < SLICE:
                return
            after = rows[-1].id


def members(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row
    """Give a delivery as an export has it, by `COLUMNS`."""
    is_event = row.source_seq is not None
    values = (
        *(str(row.id), row.channel, row.state, row.reason, row.person),
        None if is_event else str(row.source_id),
        str(row.source_id) if is_event else None,
        None if row.provider_id is None else str(row.provider_id),
        *(row.generation, row.tries, rfc3339(row.created_at), rfc3339(row.expires_at)),
        None if row.settled_at is None else rfc3339(row.settled_at),
    )
    return dict(zip(COLUMNS, values, strict=True))


def table_of(rows: Sequence[dict[str, Any]]) -> bytes:
    """Write rows as comma-separated values."""
    return _csv([[_cell(value) for value in row.values()] for row in rows])


def _cell(value: Any) -> Any:  # noqa: ANN401 - what a column holds
    # A spreadsheet runs what begins like a formula; external ids may begin so.
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()


def _place(row: Any) -> tuple[date, str, UUID | None]:  # noqa: ANN401 - a row
    return row.day, row.channel, row.provider_id


def _line(
    place: tuple[date, str, UUID | None],
    states: dict[str, int],
    taken: Any,  # noqa: ANN401 - a row, or None
    tries: Any,  # noqa: ANN401
) -> AnalyticsLine:
    settled = sum(n for state, n in states.items() if state in TERMINAL)
    tried = 0 if tries is None else tries.n
    return AnalyticsLine(
        day=place[0],
        channel=place[1],
        provider_id=place[2],
        count=sum(states.values()),
        states=states,
        in_flight=sum(states.values()) - settled,
        success_rate=_part(states, _GOOD, settled),
        failure_rate=_part(states, _BAD, settled),
        tries=tried,
        try_success_rate=round(tries.taken / tried, 4) if tried else None,
        settle_ms=_percentiles(taken),
        try_ms=_percentiles(tries),
    )


def _part(states: dict[str, int], which: frozenset[str], of: int) -> float | None:
    return round(sum(n for state, n in states.items() if state in which) / of, 4) if of else None


def _percentiles(row: Any) -> Percentiles | None:  # noqa: ANN401 - a row, or None
    if row is None or row.ms is None or row.ms[0] is None:
        return None
    p50, p95, p99 = (max(0, round(value)) for value in row.ms)
    return Percentiles(p50=p50, p95=p95, p99=p99)
