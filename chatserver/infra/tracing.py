"""Spans for OpenTelemetry: nothing is loaded, and every call here gives nothing, until `configure`.

A span has names of ours and numbers: no text of a caller's, no id of a person. What is sampled is
decided by the trace's id, so that all processes decide alike. Rows carry a trace on as
`traceparent` (W3C): a job in its payload, a fact of the outbox in its data.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self
from uuid import UUID

Kind = Literal["internal", "server", "client", "consumer"]
Value = str | int | float | bool

# The member in which a row's JSON carries it. Whoever reads the row takes it out.
CARRIED: Final = "_traceparent"
REMEMBERED: Final = 10_000
# A collector that is away must not hold up the end of a process.
EXPORT_S: Final = 3


class Span:
    """Something that takes time. This one is of nobody's interest; see `_Real`."""

    __slots__ = ()
    trace_id = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def tell(self, **attributes: Value) -> None:
        """Note something about it."""

    def rename(self, name: str) -> None:
        """Name it, where that is known only now."""

    def fails(self, code: str) -> None:
        """Note that it came out badly."""


_NOBODYS: Final = Span()


class _Real(Span):
    """`_token` is what makes it the current one of this task."""

    __slots__ = ("_link", "_span", "_token")

    def __init__(self, link: "_Link", span: Any) -> None:  # noqa: ANN401 - the library's
        self._link = link
        self._span = span
        self._token: Any = None

    @property
    def trace_id(self) -> str:  # type: ignore[override]
        return f"{self._span.get_span_context().trace_id:032x}"

    def __enter__(self) -> Self:
        self._token = self._link.attach(self._span)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            # Its kind alone: an error's text may quote what somebody wrote.
            self.fails(type(error).__name__)
        self._link.detach(self._token)
        self.end()

    def end(self) -> None:
        self._span.end()

    def tell(self, **attributes: Value) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"chatserver.{name}", value)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fails(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(self._link.error)


class _Link:
    """The library, loaded and set up."""

    def __init__(self, endpoint: str, *, part: str, node_id: str, ratio: float) -> None:
        # Loaded here alone: a start that traces nothing must not take longer.
        from opentelemetry import context, trace  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import (  # noqa: PLC0415
            ALWAYS_OFF,
            ParentBased,
            TraceIdRatioBased,
        )

        sampled = TraceIdRatioBased(ratio)
        self._context, self._trace = context, trace
        self.error = trace.StatusCode.ERROR
        self._kinds = {
            "internal": trace.SpanKind.INTERNAL,
            "server": trace.SpanKind.SERVER,
            "client": trace.SpanKind.CLIENT,
            "consumer": trace.SpanKind.CONSUMER,
        }
        self._provider = TracerProvider(
            # Whoever calls from outside may name a trace, but not have all of it kept.
            sampler=ParentBased(
                sampled, remote_parent_sampled=sampled, remote_parent_not_sampled=ALWAYS_OFF
            ),
            resource=Resource.create(
                {"service.name": f"chatserver-{part}", "service.instance.id": node_id}
            ),
            span_limits=SpanLimits(max_attribute_length=256),
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("chatserver")

    def span(self, name: str, parent: str | None, kind: Kind, began_ns: int | None = None) -> _Real:
        context = None if parent is None else self._read(parent)
        return _Real(
            self,
            self._tracer.start_span(
                name, context=context, kind=self._kinds[kind], start_time=began_ns
            ),
        )

    def attach(self, span: Any) -> Any:  # noqa: ANN401 - the library's
        return self._context.attach(self._trace.set_span_in_context(span))

    def detach(self, token: Any) -> None:  # noqa: ANN401 - the library's
        self._context.detach(token)

    def current(self) -> str | None:
        found = self._trace.get_current_span().get_span_context()
        if not found.is_valid or not found.trace_flags.sampled:
            return None
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-01"

    def stop(self) -> None:
        self._provider.shutdown()

    def _read(self, traceparent: str) -> Any:  # noqa: ANN401 - the library's
        _, trace_id, span_id, flags = traceparent.split("-")
        above = self._trace.SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(int(flags, 16)),
        )
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(above))


_link: _Link | None = None
# Where a row has no place for it: the traces of facts that this process dispatched just now.
_remembered: OrderedDict[UUID, str] = OrderedDict()


def configure(endpoint: str | None, *, part: str, node_id: str, ratio: float) -> None:
    """Send a part of all traces (`ratio`, 0 to 1) to a collector; without an address, none."""
    global _link  # noqa: PLW0603 - like logging, one for the process
    stop()
    if endpoint:
        _link = _Link(endpoint, part=part, node_id=node_id, ratio=ratio)


def stop() -> None:
    """Send what waits, for some seconds at most, and trace nothing more."""
    global _link
    link, _link = _link, None
    if link is not None:
        link.stop()


def is_on() -> bool:
    return _link is not None


def span(
    name: str, *, parent: str | None = None, kind: Kind = "internal", **attributes: Value
) -> Span:
    """Begin a span; as a context manager it is the current one of its task until its end.

    `parent` is a valid `traceparent`; without it the current span is above.
    """
    if _link is None:
        return _NOBODYS
    made = _link.span(name, parent, kind)
    made.tell(**attributes)
    return made


def passed(name: str, began_ns: int, *, parent: str | None = None, **attributes: Value) -> None:
    """Note a span that is over; `began_ns` is of `moment`."""
    if _link is None:
        return
    made = _link.span(name, parent, "internal", began_ns)
    made.tell(**attributes)
    made.end()


def moment() -> int:
    """Give the time as spans have it."""
    return time.time_ns()


def current() -> str | None:
    """Give the `traceparent` of the current span; None where nothing is traced."""
    return None if _link is None else _link.current()


def carried() -> dict[str, str]:
    """Give what a row's JSON has to have more, so that whoever takes it goes on with this trace."""
    found = current()
    return {} if found is None else {CARRIED: found}


def taken_from(members: dict[str, Any]) -> str | None:
    """Take out of a row's JSON what `carried` put there."""
    found = members.pop(CARRIED, None)
    return found if isinstance(found, str) else None


def remember(traces: Mapping[UUID, str]) -> None:
    """Keep the traces of facts, for what follows from them in this process."""
    if _link is None:
        return
    _remembered.update(traces)
    while len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)


def remembered(fact_id: UUID) -> str | None:
    return None if _link is None else _remembered.get(fact_id)
