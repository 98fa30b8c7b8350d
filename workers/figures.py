"""What a worker measures: its jobs, its lanes, the answers and documents that it makes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from chatserver.assistant.generation.handling import Measured
from chatserver.bootstrap import Container
from chatserver.infra.figures import counter, counters, gauges, histogram
from workers.deliveries import Lane
from workers.runtime import Worker
from workers.scheduler import Scheduler


class WorkFigures:
    """Is told by the parts how things went; `attach` shows it the running parts."""

    def __init__(self, registry: CollectorRegistry, container: Container) -> None:
        self._attempts: Counter[tuple[str, ...]] = Counter()
        self._answers: Counter[str] = Counter()
        self._answer_failures: Counter[str] = Counter()
        self._generations = 0
        self._tokens: Counter[str] = Counter()
        self._citations_dropped = 0
        self._documents: Counter[str] = Counter()
        self._document_failures: Counter[str] = Counter()
        self._passages = 0
        self._job_s = histogram("job_seconds", registry)
        self._first_token_s = histogram("answer_first_token_seconds", registry)
        self._answer_s = histogram("answer_seconds", registry)
        self._document_s = histogram("document_seconds", registry)
        self._delivery_s = histogram("delivery_seconds", registry)
        self._worker: Worker | None = None
        self._lanes: Sequence[Lane] = ()
        self._runner = container.sources.runner
        self._notes = {
            container.webhooks.notes.channel: container.webhooks.notes,
            **{channel: each.notes for channel, each in container.sending.notes.items()},
        }
        container.assistant.handler.begun = self._begun
        container.assistant.handler.measured = self._answered
        container.documents.trainer.measured = self._read
        registry.register(self)

    def attach(self, worker: Worker, lanes: Sequence[Lane]) -> None:
        """Show the parts that run."""
        self._worker = worker
        self._lanes = lanes
        for lane in lanes:
            lane.measured = self._delivered

    def attempted(self, kind: str, outcome: str, seconds: float) -> None:
        """Count an attempt at a job."""
        self._attempts[kind, outcome] += 1
        self._job_s.labels(kind).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        yield counters("job_attempts", self._attempts)
        yield counters("answers", _one(self._answers))
        yield counters("answer_failures", _one(self._answer_failures))
        yield counter("answer_generations", self._generations)
        yield counters("answer_tokens", _one(self._tokens))
        yield counter("answer_citations_dropped", self._citations_dropped)
        yield counters("documents", _one(self._documents))
        yield counters("document_failures", _one(self._document_failures))
        yield counter("document_passages", self._passages)
        yield counters("inbound_effects", self._runner.outcomes)
        changes = {
            (channel, now): count
            for channel, notes in self._notes.items()
            for now, count in notes.changes.items()
        }
        yield counters("delivery_target_changes", changes)
        if self._worker is not None:
            yield gauges("jobs_held", _one(self._worker.claimer.held))
            yield counter("outbox_dispatched", self._worker.dispatcher.dispatched)
            yield counter("outbox_put_off", self._worker.dispatcher.put_off)
        yield from self._deliveries()

    def _deliveries(self) -> Iterator[Metric]:
        held: dict[tuple[str, ...], float] = {}
        outcomes: dict[tuple[str, ...], float] = {}
        states: dict[tuple[str, ...], float] = {}
        back: dict[tuple[str, ...], float] = {}
        for lane in self._lanes:
            held[lane.channel, "sending"] = lane.running
            held[lane.channel, "waiting"] = lane.held - lane.running
            outcomes |= {(lane.channel, name): n for name, n in lane.outcomes.items()}
            states |= {(lane.channel, name): n for name, n in lane.states.items()}
            back[(lane.channel,)] = lane.taken_back
        yield gauges("deliveries_held", held)
        yield counters("delivery_attempts", outcomes)
        yield counters("delivery_states", states)
        yield counters("deliveries_taken_back", back)

    def _delivered(self, channel: str, seconds: float) -> None:
        self._delivery_s.labels(channel).observe(seconds)

    def _begun(self) -> None:
        self._generations += 1

    def _answered(self, run: Measured) -> None:
        self._answers[run.outcome] += 1
        if run.error_code is not None:
            self._answer_failures[run.error_code] += 1
        if run.first_token_s is not None:
            self._first_token_s.observe(run.first_token_s)
        self._answer_s.observe(run.total_s)
        self._tokens.update(run.tokens)
        self._citations_dropped += run.citations_dropped

    def _read(self, outcome: str, reason: str, seconds: float, passages: int) -> None:
        self._documents[outcome] += 1
        if reason:
            self._document_failures[reason] += 1
        self._document_s.observe(seconds)
        self._passages += passages


class SchedulerFigures:
    """What the scheduler did."""

    def __init__(self, registry: CollectorRegistry, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield counters("duties_planned", _one(self._scheduler.planned))
        yield counters("jobs_taken_back", self._scheduler.swept)


def _one(counts: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(name,): count for name, count in counts.items()}
