"""Metrics for Prometheus and spans for OpenTelemetry, made from events after they are durable."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event

if TYPE_CHECKING:
    # OpenTelemetry is slow to import, and every command of the CLI imports this module.
    from wsgiref.simple_server import WSGIServer

    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
    from opentelemetry.trace import TracerProvider

    from orchestrator.adapters.telemetry_spans import Spans

log = logging.getLogger(__name__)

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_COMMITS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_STEPS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600)
_COUNTS = {
    "claims": ("saga_claims", "Instances claimed by this worker."),
    "takeovers": ("saga_takeovers", "Instances freed because their worker was found dead."),
    "refused_appends": ("saga_fenced", "Appends refused because another owner has the instance."),
    "lost_leases": ("saga_lost_leases", "Times this worker lost its lease and began anew."),
    "published_events": ("saga_published_events", "Events that the broker acknowledged."),
    "relay_terms": ("saga_relay_terms", "Times this relay took over the checkpoint."),
    "relay_failures": ("saga_relay_failures", "Times this relay went back to its checkpoint."),
    "consumed_records": ("saga_consumed_records", "Records of topics that were taken in."),
    "dead_letters": ("saga_dead_letters", "Records that could not be taken in, and were kept."),
    "lost_records": (
        "saga_lost_records",
        "Records that were removed from their topic before they were read.",
    ),
    "parked_events": ("saga_parked_events", "Events that a handler failed on, and were parked."),
    "stopped_partitions": ("saga_stopped_partitions", "Times an error stopped a partition."),
    "relays_fenced": ("saga_relays_fenced", "Times another relay took the checkpoint away."),
    "producers_rebuilt": ("saga_producers_rebuilt", "Times a producer failed and was thrown away."),
    "positions_refused": ("saga_positions_refused", "Times log and broker were found to disagree."),
    "feed_gate_timeouts": (
        "saga_feed_gate_timeouts",
        "Times an append in flight delayed the feed.",
    ),
}
_LEVELS = {
    "relay_lag_events": (
        "saga_relay_lag_events",
        "Positions of the log not yet published.",
        "shard",
    ),
    "relay_lag_seconds": (
        "saga_relay_lag_seconds",
        "Age of the oldest event not yet published.",
        "shard",
    ),
    "oldest_transaction": (
        "saga_oldest_transaction_seconds",
        "How long the oldest transaction is open that keeps dead rows from being removed.",
        "",
    ),
}


class SilentTelemetry:
    """Hears everything and says nothing."""

    def recorded(self, saga_name: str, saga_id: str, events: Iterable[Event], meta: str) -> None:
        return

    def attempted(self, saga_name: str, step: str, outcome: str, seconds: float) -> None:
        return

    def batch(self, kind: str, size: int, seconds: float) -> None:
        return

    def count(self, name: str, by: int = 1) -> None:
        return

    def level(self, name: str, of: str, value: float) -> None:
        return


class EventTelemetry:
    """Counts durable facts in *registry*; with a tracer provider, tells them as spans too."""

    def __init__(
        self, registry: CollectorRegistry, tracer_provider: TracerProvider | None = None
    ) -> None:
        self.registry = registry
        self._spans = None if tracer_provider is None else _spans(tracer_provider)
        self._facts: dict[tuple[str, str, type[Event]], Callable[[], None]] = {}
        self._seconds: dict[tuple[str, str, str], Histogram] = {}
        self._closing: list[Callable[[], None]] = []
        self._declare()

    def _declare(self) -> None:
        kept = self.registry

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(name, says, labels, registry=kept)

        self._started = counter("saga_started", "Instances whose first event was written.", "saga")
        self._finished = counter("saga_finished", "Instances that ended.", "saga", "outcome")
        self._stuck = counter("saga_stuck", "Instances that need a person.", "saga")
        self._active = Gauge(
            "saga_active",
            "Instances that this process began, less those that it ended or parked as stuck; "
            "add up all processes.",
            ("saga",),
            registry=kept,
        )
        self._attempts = counter(
            "saga_step_attempts", "Recorded step attempts.", "saga", "step", "outcome"
        )
        self._duration = Histogram(
            "saga_step_duration_seconds",
            "How long actions and compensations of a step ran.",
            ("saga", "step", "outcome"),
            buckets=_STEPS,
            registry=kept,
        )
        self._compensations = counter("saga_compensation", "Recorded undo attempts.", "outcome")
        self._counts = {name: counter(*known) for name, known in _COUNTS.items()}
        self._others = counter("saga_counts", "What is counted besides.", "what")
        self._levels = {
            name: Gauge(told, says, (label,) if label else (), registry=kept)
            for name, (told, says, label) in _LEVELS.items()
        }
        self._other_levels = Gauge("saga_level", "What else stands.", ("what", "of"), registry=kept)
        self._declare_batches()

    def _declare_batches(self) -> None:
        def histogram(name: str, says: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(name, says, labels, buckets=buckets, registry=self.registry)

        self._batches = {
            "append": (
                histogram("saga_append_batch_size", "Instances in one append.", _SIZES),
                histogram("saga_append_seconds", "Time of one append and its commit.", _COMMITS),
            )
        }
        self._sizes = histogram("saga_batch_size", "Items in one batch.", _SIZES, "kind")
        self._times = histogram("saga_batch_seconds", "Time of one batch.", _COMMITS, "kind")

    # ------------------------------------------------------------------ the port

    def recorded(self, saga_name: str, saga_id: str, events: Iterable[Event], meta: str) -> None:
        facts = self._facts
        if self._spans is not None:
            events = tuple(events)
        for event in events:
            key = (saga_name, getattr(event, "step", ""), type(event))
            try:
                tell = facts[key]
            except KeyError:
                tell = facts[key] = self._fact(*key)
            tell()
        if self._spans is not None:
            self._spans.recorded(saga_name, saga_id, events, meta)

    def attempted(self, saga_name: str, step: str, outcome: str, seconds: float) -> None:
        key = (saga_name, step, outcome)
        try:
            histogram = self._seconds[key]
        except KeyError:
            known = self._duration.labels(saga_name, step, _outcome(outcome))
            histogram = self._seconds[key] = known
        histogram.observe(seconds)

    def batch(self, kind: str, size: int, seconds: float) -> None:
        sizes, times = self._batches.get(kind) or self._batch(kind)
        sizes.observe(size)
        times.observe(seconds)

    def count(self, name: str, by: int = 1) -> None:
        (self._counts.get(name) or self._others.labels(name)).inc(by)

    def level(self, name: str, of: str, value: float) -> None:
        gauge = self._levels.get(name)
        if gauge is None:
            gauge = self._other_levels.labels(name, of)
        elif of:
            gauge = gauge.labels(of)
        gauge.set(value)

    # ------------------------------------------------------------------ opening and closing

    def on_close(self, act: Callable[[], None]) -> None:
        """Have *act* called by `close`, the latest first."""
        self._closing.append(act)

    def close(self) -> None:
        """Stop answering scrapes, and send the spans that wait."""
        while self._closing:
            self._closing.pop()()

    # ------------------------------------------------------------------ inside

    def _fact(self, saga: str, step: str, kind: type[Event]) -> Callable[[], None]:
        """What one kind of event of one saga and step adds to."""
        if kind is ev.SagaStarted:
            return _both(self._started.labels(saga).inc, self._active.labels(saga).inc)
        if kind is ev.SagaCompleted:
            return self._end(saga, "completed")
        if kind is ev.SagaCompensated:
            return self._end(saga, "compensated")
        if kind is ev.SagaStuck:
            return _both(self._stuck.labels(saga).inc, self._active.labels(saga).dec)
        if kind in _ATTEMPTS:
            return self._attempts.labels(saga, step, _ATTEMPTS[kind]).inc
        if kind is ev.StepCompensated:
            return self._compensations.labels("succeeded").inc
        if kind is ev.CompensationFailed:
            return self._compensations.labels("failed").inc
        return _nothing

    def _end(self, saga: str, outcome: str) -> Callable[[], None]:
        return _both(self._finished.labels(saga, outcome).inc, self._active.labels(saga).dec)

    def _batch(self, kind: str) -> tuple[Histogram, Histogram]:
        made = self._batches[kind] = (self._sizes.labels(kind), self._times.labels(kind))
        return made


_ATTEMPTS: dict[type[Event], str] = {
    ev.StepSucceeded: "succeeded",
    ev.StepFailed: "failed",
    ev.StepInDoubt: "in_doubt",
}


def _outcome(name: str) -> str:
    """The label of an outcome: InDoubt is in_doubt."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def act() -> None:
        one()
        other()

    return act


def _nothing() -> None:
    return


def initialize_observability(
    service_name: str = "saga-orchestrator",
    *,
    enable_prometheus: bool = True,
    enable_tracing: bool = True,
    prometheus_port: int = 9464,
    prometheus_host: str = "127.0.0.1",
) -> EventTelemetry:
    """Telemetry for this process: metrics over HTTP, spans to `OTEL_EXPORTER_OTLP_ENDPOINT`.

    A port that is taken is a warning, not an end: the worker matters more than its metrics.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    provider = _provider(service_name) if enable_tracing else None
    telemetry = EventTelemetry(registry, provider)
    if provider is not None:
        telemetry.on_close(lambda: _flush(provider))
    if enable_prometheus:
        try:
            server, thread = start_http_server(prometheus_port, prometheus_host, registry)
        except OSError as error:
            place = prometheus_port, prometheus_host
            log.warning("no metrics: port %d cannot be used on %s (%s)", *place, error)
        else:
            telemetry.on_close(lambda: _stop(server, thread.join))
    return telemetry


def _stop(server: WSGIServer, wait: Callable[[float], None]) -> None:
    server.shutdown()
    server.server_close()
    wait(5.0)


def _flush(provider: SdkTracerProvider) -> None:
    if not provider.force_flush(5_000):
        log.warning("spans that were not sent within 5 s may be lost")


def _spans(provider: TracerProvider) -> Spans:
    from orchestrator.adapters.telemetry_spans import Spans

    return Spans(provider)


def _provider(service_name: str) -> SdkTracerProvider | None:
    from orchestrator.adapters.telemetry_spans import open_tracer_provider

    return open_tracer_provider(service_name)
