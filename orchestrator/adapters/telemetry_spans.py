"""Spans told from events: one for each finished attempt of a step, one for each ended instance."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TracerProvider,
    get_tracer_provider,
    set_span_in_context,
    set_tracer_provider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event

log = logging.getLogger(__name__)

_REMEMBERED = 10_000
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(slots=True)
class _Trail:
    """What is remembered of an instance between two facts: when it began, when the last was."""

    began: int
    last: int


class Spans:
    """Tells events as spans. A step's span reaches from the fact before it to its own.

    They hang below the caller's traceparent; without one, all spans of an instance share a
    trace whose id is made of the instance's, in whichever process they come about.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("saga-orchestrator")
        self._sampler: Sampler | None = getattr(provider, "sampler", None)
        self._trails: OrderedDict[str, _Trail] = OrderedDict()

    def recorded(self, saga_name: str, saga_id: str, events: Iterable[Event], meta: str) -> None:
        now = time.time_ns()
        trail = self._trail(saga_id, now)
        kept = _meta(meta)
        context = self._parent(str(kept.get("traceparent", "")), saga_id)
        for event in events:
            told = _told(event, saga_name)
            if isinstance(event, ev.SagaStarted):
                trail.began = trail.last = _nanoseconds(event.requested_at)
            if told is None:
                continue
            name, whole, wrong, more = told
            attributes = {"saga.id": saga_id, "saga.name": saga_name, **more}
            if correlation := kept.get("correlation_id"):
                attributes["saga.correlation_id"] = str(correlation)
            start = trail.began if whole else trail.last
            span = self._tracer.start_span(
                name, context, attributes=attributes, start_time=min(start, now)
            )
            if wrong is not None:
                span.set_status(Status(StatusCode.ERROR, wrong))
            span.end(now)
            if whole:
                self._trails.pop(saga_id, None)
        trail.last = now

    def _parent(self, traceparent: str, saga_id: str) -> Context:
        """The caller's span; else a parent made of the instance's id."""
        context = _PROPAGATOR.extract({"traceparent": traceparent}, Context())
        if context:
            return context
        digest = hashlib.blake2b(saga_id.encode(), digest_size=24).digest()
        number = int.from_bytes(digest[:16])
        own = SpanContext(
            number, int.from_bytes(digest[16:]), is_remote=True, trace_flags=self._flags(number)
        )
        return set_span_in_context(NonRecordingSpan(own), Context())

    def _flags(self, trace_id: int) -> TraceFlags:
        """Sampled or not as the provider would decide for a root of this trace."""
        if self._sampler is None:
            return TraceFlags(TraceFlags.SAMPLED)
        decision = self._sampler.should_sample(None, trace_id, "saga").decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        return TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)

    def _trail(self, saga_id: str, now: int) -> _Trail:
        trail = self._trails.pop(saga_id, None) or _Trail(_began(saga_id, now), now)
        self._trails[saga_id] = trail
        if len(self._trails) > _REMEMBERED:
            self._trails.popitem(last=False)
        return trail


def _told(event: Event, saga_name: str) -> tuple[str, bool, str | None, dict[str, Any]] | None:
    """Name, whether it is of the whole instance, what went wrong, and attributes."""
    match event:
        case ev.StepSucceeded():
            return f"step {event.step}", False, None, _place(event)
        case ev.StepFailed() | ev.StepInDoubt():
            return f"step {event.step}", False, event.failure.message, _failed(event)
        case ev.StepCompensated():
            return f"undo {event.step}", False, None, _place(event)
        case ev.CompensationFailed():
            return f"undo {event.step}", False, event.failure.message, _failed(event)
        case ev.SagaCompleted():
            return f"saga {saga_name}", True, None, {"saga.outcome": "completed"}
        case ev.SagaCompensated(reason=reason):
            return f"saga {saga_name}", True, reason, {"saga.outcome": "compensated"}
        case ev.SagaStuck(reason=reason):
            return f"saga {saga_name}", True, reason, {"saga.outcome": "stuck"}
        case _:
            return None


_Attempt = ev.StepSucceeded | ev.StepCompensated
_Failure = ev.StepFailed | ev.StepInDoubt | ev.CompensationFailed


def _place(event: _Attempt | _Failure) -> dict[str, Any]:
    return {"saga.step": event.step, "saga.node": event.node, "saga.attempt": event.attempt}


def _failed(event: _Failure) -> dict[str, Any]:
    doubt = isinstance(event, ev.StepInDoubt)
    return {**_place(event), "error.type": event.failure.type, "saga.in_doubt": doubt}


@lru_cache(maxsize=1024)
def _meta(meta: str) -> dict[str, Any]:
    found = json.loads(meta) if meta else {}
    return found if isinstance(found, dict) else {}


def _began(saga_id: str, now: int) -> int:
    """When an instance was requested, by its UUIDv7; now when the id does not tell."""
    try:
        number = uuid.UUID(saga_id).int
    except ValueError:
        return now
    return (number >> 80) * 1_000_000 if number >> 76 & 0xF == 7 else now


def _nanoseconds(when: datetime) -> int:
    return int(when.astimezone(UTC).timestamp() * 1_000_000) * 1_000


def open_tracer_provider(service_name: str) -> SdkTracerProvider | None:
    """The application's own provider, else one that sends to the OTLP endpoint, else none."""
    present = get_tracer_provider()
    if isinstance(present, SdkTracerProvider):
        return present
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning(
            "no spans: OTEL_EXPORTER_OTLP_ENDPOINT is set, but the exporter is not installed; "
            "pip install 'saga-orchestrator[otlp]'"
        )
        return None
    provider = SdkTracerProvider(resource=Resource.create({SERVICE_NAME: service_name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    set_tracer_provider(provider)
    return provider
