"""What is measured: every figure in one table. Collectors, documents, dashboard and alerts use it.

No label names a client, a user, a room or a key, and each takes few values: a figure costs memory
for every value of its labels, here and in whatever keeps it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

Kind = Literal["gauge", "counter", "histogram"]
Where = Literal["every process", "web", "worker", "scheduler"]

# When a figure was first kept would be a figure of its own for each of them.
disable_created_metrics()  # type: ignore[no-untyped-call]
# The values of a figure's labels, in their order.
Labels = TypeVar("Labels", bound=tuple[str, ...])

PREFIX: Final = "chatserver_"
FAST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LAG_S: Final = (*FAST_S, 10, 30)
SLOW_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
JOB_S: Final = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. Its name ends in its unit (`_seconds`, `_bytes`), a counter's in `_total`."""

    name: str
    kind: Kind
    where: Where
    says: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


def _gauge(where: Where, name: str, says: str, *labels: str) -> Figure:
    return Figure(name, "gauge", where, says, labels)


def _counter(where: Where, name: str, says: str, *labels: str) -> Figure:
    return Figure(name, "counter", where, says, labels)


def _histogram(
    where: Where, name: str, says: str, *labels: str, buckets: tuple[float, ...] = FAST_S
) -> Figure:
    return Figure(name, "histogram", where, says, labels, buckets)


_EVERY: Final = "every process"
_PROCESS: Final = (
    _gauge(_EVERY, "build_info", "1; what runs here.", "part", "version", "python"),
    _gauge(_EVERY, "loop_lag_seconds", "Longest delay of the event loop since the last look."),
    _counter(_EVERY, "loop_blocked", "Times that the event loop stood still for longer than "
        "`LOOP_BLOCKED_MS`; the log has the stack."),
    _counter(_EVERY, "loop_blocked_seconds", "How long it stood still in all those times."),
    _gauge(_EVERY, "database_connections", "Connections to PostgreSQL. Pool: `services`, `reads`,"
        " `writes` or `arrivals`; state: `busy` or `idle`.", "pool", "state"),
    _gauge(_EVERY, "database_connections_limit", "The most that a pool opens.", "pool"),
    _gauge(_EVERY, "database_waiting", "Statements that wait for a free connection.", "pool"),
    _counter(_EVERY, "database_unavailable", "Statements that PostgreSQL could not serve: too"
        " slow, away, or no connection free.", "reason"),
    _gauge(_EVERY, "redis_healthy", "Whether Redis answers. Use: `bus`, `limits`, `answers`"
        " (deltas) or `queue` (doorbells).", "use"),
    _counter(_EVERY, "doorbells", "Workers told to look; outcome: `rung` or `unheard`. What is"
        " unheard is found by poll.", "outcome"),
    _counter(_EVERY, "log_events", "Log lines of level warning and worse.", "level"),
)  # fmt: skip
_DOORS: Final = (
    _gauge("web", "connections", "Connected namespaces; transport is `websocket`, `polling` or"
        " `plain` (`/api/v1/websocket`).", "namespace", "transport"),
    _gauge("web", "sessions", "Connections, whatever namespaces they have.", "transport"),
    _gauge("web", "users_connected", "Users with connections here."),
    _gauge("web", "rooms_followed", "Rooms that somebody here listens to."),
    _counter("web", "commands", "Commands of sockets answered; outcome is `ok` or an error code."
        " `message.send` with `ok` are the sends.", "command", "outcome"),
    _histogram("web", "command_seconds", "From a command's turn until its answer; every eighth.",
        "command"),
    _gauge("web", "commands_pending", "Commands that wait or run."),
    _counter("web", "http_requests", "Requests of REST answered; operation as in the OpenAPI"
        " document, else `none`.", "operation", "status"),
    _histogram("web", "http_request_seconds", "From a request until its answer; noun: the first"
        " part of its operation.", "noun", buckets=SLOW_S),
    _gauge("web", "output_waiting_bytes", "Bytes that wait for peers, of all connections."),
    _counter("web", "ephemerals_shed", "Packets dropped for peers that read slowly."),
    _counter("web", "closings", "Connections that this node ended, by the code of"
        " `session.closing`.", "code"),
    _counter("web", "drops", "Connections that are gone, whoever ended them.", "reason"),
    _counter("web", "connects_refused", "Refused connects by error code.", "code"),
    _counter("web", "handshakes_turned_away", "Connects that found no free place within 2 s."),
    _counter("web", "protocol_violations", "Peers that broke Engine.IO or Socket.IO."),
    _counter("web", "forwarded", "Requests of other nodes' sessions: `requests` and `upgrades`"
        " handed on, `dead` refused because their node can't be reached, `hops` that came to a"
        " wrong node a second time. Behind a balancer that routes by session id all stay near 0.",
        "what"),
    _counter("web", "recoveries", "Clients that asked to go on where they were cut off: `recovered`"
        " or `refused` (they connect anew and sync).", "outcome"),
    _gauge("web", "presence_entries", "Sessions that this node keeps present."),
    _gauge("web", "presence_watched", "Users that somebody here watches."),
    _counter("web", "inbound_webhooks", "Requests to inbound sources: `kept`, `duplicate`,"
        " `challenge`, `refused`, `too_late`, `rate_limited` or `failed`.", "outcome"),
)  # fmt: skip
_DELIVERY: Final = (
    _histogram("web", "batch_size", "Sends in one commit.", buckets=SIZES),
    _histogram("web", "commit_seconds", "How long one commit of sends took."),
    _histogram("web", "fanout_lag_seconds", "From the commit, by PostgreSQL's clock, until this"
        " node had put the fact into its sockets' outboxes; every eighth of a room. A node whose"
        " clock is off shows it here.", buckets=LAG_S),
    _counter("web", "facts", "Facts shown here."),
    _counter("web", "deliveries", "The same times those who saw each."),
    _counter("web", "facts_reread", "Facts read from the event log to fill holes, and for"
        " recoveries of a live room."),
    _counter("web", "holes_found", "Rooms and users that the change list found behind."),
    _counter("web", "tips", "`sync.tips` told."),
    _gauge("web", "bus_healthy", "1 while what other nodes publish arrives here."),
    _counter("web", "degraded_seconds", "How long it did not."),
    _gauge("web", "bus_heartbeat_seconds", "The last heartbeat's way through Redis."),
    _counter("web", "bus_received", "Messages of the bus."),
    _counter("web", "bus_strangers", "Those for rooms that nobody here is in."),
    _counter("web", "bus_forged", "Those that none of us wrote."),
    _counter("web", "bus_failed", "Those that could not be taken."),
    _counter("web", "bus_reconnects", "Lost connections to the bus."),
    _counter("web", "bus_published", "Messages sent."),
    _counter("web", "bus_dropped", "Messages not sent: Redis was away."),
    _counter("web", "bus_spared", "Facts that no other node was there to hear."),
    _gauge("web", "storage_healthy", "Whether the store of files answered when it was last asked,"
        " by `/health/ready` or an upload."),
    _gauge("web", "part_healthy", "What `/health/ready` said of a part when it was last asked: 1"
        " ready, 0.5 degraded, 0 unready.", "part"),
    _gauge("web", "database_ping_seconds", "How long the last health check of PostgreSQL took."),
)  # fmt: skip
_WORK: Final = (
    _gauge("worker", "jobs_held", "Jobs that this process does just now.", "kind"),
    _counter("worker", "job_attempts", "Attempts by how they ended: `done`, `retried`, `failed`,"
        " `given_back` or `lost` (the lease was).", "kind", "outcome"),
    _histogram("worker", "job_seconds", "How long an attempt took.", "kind", buckets=JOB_S),
    _counter("worker", "outbox_dispatched", "Facts whose later reactions were planned."),
    _counter("worker", "outbox_put_off", "Facts whose reactions failed, to be tried again."),
    _counter("worker", "answers", "Answers of the assistant that ended: `complete`, `failed` or"
        " `cancelled`.", "outcome"),
    _counter("worker", "answer_failures", "Failed ones by error code.", "code"),
    _counter("worker", "answer_generations", "Runs that were begun: more than answers, where"
        " workers die or answers are resumed."),
    _histogram("worker", "answer_first_token_seconds", "From a run's begin to the first piece of"
        " the model.", buckets=SLOW_S),
    _histogram("worker", "answer_seconds", "From a run's begin to its end.", buckets=SLOW_S),
    _counter("worker", "answer_tokens", "Tokens by use: `prompt` or `completion`.", "use"),
    _counter("worker", "answer_citations_dropped", "Citations of sources that were never given."),
    _counter("worker", "documents", "Documents that were read: `ready`, `failed` or"
        " `superseded`.", "outcome"),
    _counter("worker", "document_failures", "Failed ones by reason.", "reason"),
    _histogram("worker", "document_seconds", "How long the reading of a document took.",
        buckets=JOB_S),
    _counter("worker", "document_passages", "Passages that became searchable."),
    _gauge("worker", "deliveries_held", "Deliveries in this process; state: `sending` or `waiting`"
        " for their turn.", "channel", "state"),
    _counter("worker", "delivery_attempts", "Tries by what the receiver did: `accepted`,"
        " `retryable`, `throttled`, `configuration`, `rejected`, `gone`, `unknown` and so on.",
        "channel", "outcome"),
    _histogram("worker", "delivery_seconds", "How long a try took.", "channel", buckets=SLOW_S),
    _counter("worker", "delivery_states", "What deliveries became by a try: `accepted`,"
        " `retry_wait`, `failed`, `bounced` and so on.", "channel", "state"),
    _counter("worker", "deliveries_taken_back", "Deliveries of dead workers, queued again.",
        "channel"),
    _counter("worker", "delivery_target_changes", "Endpoints and providers whose health changed:"
        " what was told of them.", "channel", "now"),
    _counter("worker", "inbound_effects", "Actions of inbound rules: `done`, `failed`, `skipped` or"
        " `waiting`.", "action", "outcome"),
)  # fmt: skip
_STANDING: Final = (
    _gauge("scheduler", "scheduler_active", "1 in the one process that has the role; what the whole"
        " deployment has waiting is measured there alone."),
    _counter("scheduler", "duties_planned", "Periodic jobs that were planned.", "kind"),
    _counter("scheduler", "jobs_taken_back", "Jobs of dead workers: `queued` again, or `failed`.",
        "kind", "state"),
    _gauge("scheduler", "jobs", "Jobs that are there: `due`, `planned` for later, or `running`.",
        "kind", "state"),
    _gauge("scheduler", "job_oldest_due_seconds", "How long the oldest of the due has been due.",
        "kind"),
    _gauge("scheduler", "outbox_rows", "Facts whose reactions are to be planned: `waiting`, or"
        " `set_aside` after too many failures.", "state"),
    _gauge("scheduler", "outbox_oldest_seconds", "Age of the oldest that waits."),
    _gauge("scheduler", "deliveries_waiting", "Deliveries that have not ended.", "channel",
        "state"),
    _gauge("scheduler", "delivery_oldest_due_seconds", "How long the oldest of them has been due.",
        "channel"),
    _gauge("scheduler", "delivery_targets", "Endpoints and providers by health: `active`,"
        " `degraded`, `paused` or `disabled`.", "channel", "state"),
    _gauge("scheduler", "ledger_promised", "Deliveries that were promised yesterday and today"
        " (UTC).", "channel"),
    _gauge("scheduler", "ledger_missing", "How many of those have no row: anything but 0 is a"
        " bug.", "channel"),
    _gauge("scheduler", "answers_running", "Answers that wait or are written."),
    _gauge("scheduler", "standing_seconds", "How long the last look at all this took."),
)  # fmt: skip

ALL: Final = (*_PROCESS, *_DOORS, *_DELIVERY, *_WORK, *_STANDING)
FIGURES: Final[Mapping[str, Figure]] = {figure.name: figure for figure in ALL}


def gauge(name: str, value: float | None = None) -> GaugeMetricFamily:
    """Make a figure of now; without a value, one is added for each combination of its labels."""
    figure = _of_kind(name, "gauge")
    return GaugeMetricFamily(figure.full_name, figure.says, value=value, labels=_labels(figure))


def counter(name: str, value: float | None = None) -> CounterMetricFamily:
    """Make a count that somebody keeps."""
    figure = _of_kind(name, "counter")
    return CounterMetricFamily(
        PREFIX + figure.name, figure.says, value=value, labels=_labels(figure)
    )


def gauges(name: str, values: Mapping[Labels, float]) -> Metric:
    """Make a figure by its labels' values, in the catalogue's order."""
    made = gauge(name)
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made


def counters(name: str, values: Mapping[Labels, float]) -> Metric:
    """Make a count by its labels' values, in the catalogue's order."""
    made = counter(name)
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made


def counting(name: str, registry: CollectorRegistry) -> Counter:
    """Make a count that is kept by itself."""
    figure = _of_kind(name, "counter")
    return Counter(PREFIX + figure.name, figure.says, figure.labels, registry=registry)


def histogram(name: str, registry: CollectorRegistry) -> Histogram:
    """Make a distribution, which is always kept by itself."""
    figure = _of_kind(name, "histogram")
    return Histogram(
        figure.full_name, figure.says, figure.labels, buckets=figure.buckets, registry=registry
    )


def _of_kind(name: str, kind: Kind) -> Figure:
    figure = FIGURES[name]
    if figure.kind != kind:
        msg = f"{name} is a {figure.kind}"
        raise ValueError(msg)
    return figure


def _labels(figure: Figure) -> tuple[str, ...] | None:
    return figure.labels or None
