"""Telemetry: real scrapes of a real port, real spans, and what each event adds to them."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

from orchestrator.adapters.telemetry import (
    EventTelemetry,
    SilentTelemetry,
    initialize_observability,
)
from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Failure, Json
from orchestrator.ports import Telemetry
from orchestrator.runtime.service import new_id

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
STARTED = ev.SagaStarted("order", 1, "f1", AT, Json("1"))
OOPS = Failure("Oops", "it broke")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def succeeded(step: str) -> ev.StepSucceeded:
    return ev.StepSucceeded(f"order/{step}", step, 1, Json("1"))


def meta(**fields: str) -> str:
    return json.dumps(fields)


@pytest.fixture
def telemetry() -> EventTelemetry:
    return EventTelemetry(CollectorRegistry())


def value(telemetry: EventTelemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# ---------------------------------------------------------------------------- metrics


def test_events_are_counted_by_saga_step_and_outcome(telemetry: EventTelemetry) -> None:
    telemetry.recorded("order", "s1", [STARTED, succeeded("hold"), succeeded("hold")], "{}")
    telemetry.recorded("order", "s1", [ev.StepFailed("order/1", "ship", 1, OOPS)], "{}")
    telemetry.recorded("order", "s1", [ev.StepInDoubt("order/1", "ship", 2, OOPS)], "{}")
    name = "saga_step_attempts_total"
    assert value(telemetry, "saga_started_total", saga="order") == 1
    assert value(telemetry, "saga_active", saga="order") == 1
    assert value(telemetry, name, saga="order", step="hold", outcome="succeeded") == 2
    assert value(telemetry, name, saga="order", step="ship", outcome="failed") == 1
    assert value(telemetry, name, saga="order", step="ship", outcome="in_doubt") == 1


@pytest.mark.parametrize(
    ("event", "metric", "labels"),
    [
        (ev.SagaCompleted(Json("1")), "saga_finished_total", {"outcome": "completed"}),
        (ev.SagaCompensated("why"), "saga_finished_total", {"outcome": "compensated"}),
        (ev.SagaStuck("", "", "why"), "saga_stuck_total", {}),
    ],
)
def test_an_end_is_counted_and_no_longer_active(
    telemetry: EventTelemetry, event: Event, metric: str, labels: dict[str, str]
) -> None:
    telemetry.recorded("order", "s1", [STARTED, event], "{}")
    assert value(telemetry, metric, saga="order", **labels) == 1
    assert value(telemetry, "saga_active", saga="order") == 0


def test_compensations_are_counted_by_outcome(telemetry: EventTelemetry) -> None:
    done = ev.StepCompensated("order/0", "hold", 2)
    failed = ev.CompensationFailed("order/0", "hold", 1, OOPS)
    telemetry.recorded("order", "s1", [failed, done], "{}")
    assert value(telemetry, "saga_compensation_total", outcome="succeeded") == 1
    assert value(telemetry, "saga_compensation_total", outcome="failed") == 1


def test_how_long_steps_ran_is_observed(telemetry: EventTelemetry) -> None:
    telemetry.attempted("order", "hold", "InDoubt", 0.2)
    telemetry.attempted("order", "hold", "InDoubt", 0.3)
    labels = {"saga": "order", "step": "hold", "outcome": "in_doubt"}
    assert value(telemetry, "saga_step_duration_seconds_count", **labels) == 2
    assert value(telemetry, "saga_step_duration_seconds_sum", **labels) == pytest.approx(0.5)


def test_batches_are_observed_by_size_and_time(telemetry: EventTelemetry) -> None:
    telemetry.batch("append", 7, 0.002)
    telemetry.batch("start", 3, 0.5)
    assert value(telemetry, "saga_append_batch_size_sum") == 7
    assert value(telemetry, "saga_append_seconds_count") == 1
    assert value(telemetry, "saga_batch_size_sum", kind="start") == 3
    assert value(telemetry, "saga_batch_seconds_sum", kind="start") == 0.5


def test_counts_have_their_own_names_and_any_other_is_kept_by_label(
    telemetry: EventTelemetry,
) -> None:
    assert value(telemetry, "saga_takeovers_total") == 0
    telemetry.count("takeovers", 5)
    telemetry.count("refused_appends")
    telemetry.count("started")
    assert value(telemetry, "saga_takeovers_total") == 5
    assert value(telemetry, "saga_fenced_total") == 1
    assert value(telemetry, "saga_counts_total", what="started") == 1


def test_two_telemetries_share_nothing() -> None:
    one, other = EventTelemetry(CollectorRegistry()), EventTelemetry(CollectorRegistry())
    one.count("claims")
    assert value(other, "saga_claims_total") == 0


def test_silence_does_not_even_look_at_the_events() -> None:
    silent: Telemetry = SilentTelemetry()
    events = iter([STARTED])
    silent.recorded("order", "s1", events, "{}")
    silent.attempted("order", "hold", "Succeeded", 1.0)
    silent.batch("append", 1, 1.0)
    silent.count("claims")
    assert next(events) is STARTED


# ---------------------------------------------------------------------------- scrapes


def test_metrics_are_served_over_http_until_closed() -> None:
    port = free_port()
    telemetry = initialize_observability(
        enable_tracing=False, prometheus_port=port, prometheus_host="127.0.0.1"
    )
    telemetry.recorded("order", "s1", [STARTED, succeeded("hold")], "{}")
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        body = answer.read().decode()
    telemetry.close()
    assert 'saga_started_total{saga="order"} 1.0' in body
    assert 'saga_step_attempts_total{outcome="succeeded",saga="order",step="hold"} 1.0' in body
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_a_port_that_is_taken_is_a_warning_and_the_worker_lives_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with caplog.at_level(logging.WARNING):
            telemetry = initialize_observability(
                enable_tracing=False, prometheus_port=port, prometheus_host="127.0.0.1"
            )
    assert f"port {port} cannot be used" in caplog.text
    telemetry.count("claims")
    assert value(telemetry, "saga_claims_total") == 1
    telemetry.close()


def test_no_server_is_started_when_none_is_wanted() -> None:
    port = free_port()
    telemetry = initialize_observability(
        enable_prometheus=False, enable_tracing=False, prometheus_port=port
    )
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    telemetry.close()


# ---------------------------------------------------------------------------- spans


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter) -> Iterator[EventTelemetry]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield EventTelemetry(CollectorRegistry(), provider)
    provider.shutdown()


def context_of(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    assert span.parent is not None
    return f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}"


def test_each_finished_attempt_and_each_end_is_a_span(
    traced: EventTelemetry, exporter: InMemorySpanExporter
) -> None:
    told = meta(correlation_id="request-7", traceparent=f"00-{TRACE}-{SPAN}-01")
    saga_id = new_id()
    started = ev.StepStarted("order/1", "ship", 1)
    failed = ev.StepFailed("order/1", "ship", 1, OOPS)
    undone = ev.StepCompensated("order/0", "hold", 1)
    traced.recorded("order", saga_id, [STARTED, succeeded("hold"), started], told)
    traced.recorded("order", saga_id, iter([failed]), told)
    traced.recorded("order", saga_id, [undone, ev.SagaCompensated("Oops")], told)
    spans = exporter.get_finished_spans()
    assert [s.name for s in spans] == ["step hold", "step ship", "undo hold", "saga order"]
    assert {context_of(span) for span in spans} == {(TRACE, SPAN)}
    assert all((s.attributes or {})["saga.correlation_id"] == "request-7" for s in spans)
    assert [s.status.status_code is StatusCode.ERROR for s in spans] == [False, True, False, True]
    assert (spans[1].attributes or {})["error.type"] == "Oops"
    assert spans[0].start_time == spans[3].start_time == int(AT.timestamp()) * 10**9
    assert spans[1].start_time == spans[0].end_time


def test_without_a_traceparent_all_spans_of_an_instance_share_a_trace_in_any_process(
    exporter: InMemorySpanExporter,
) -> None:
    one, other = new_id(), new_id()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for saga_id in (one, one, other):
        process = EventTelemetry(CollectorRegistry(), provider)
        process.recorded("order", saga_id, [succeeded("hold")], "{}")
    first, second, third = map(context_of, exporter.get_finished_spans())
    assert first == second != third
    provider.shutdown()


@pytest.mark.parametrize("traceparent", ["", "junk", "00-zz-yy-01", f"00-{'0' * 32}-{SPAN}-01"])
def test_a_traceparent_that_is_none_disturbs_nothing(
    traced: EventTelemetry, exporter: InMemorySpanExporter, traceparent: str
) -> None:
    traced.recorded("order", new_id(), [succeeded("hold")], meta(traceparent=traceparent))
    [span] = exporter.get_finished_spans()
    assert span.parent is not None


def test_a_taken_over_instance_began_when_its_id_says(
    traced: EventTelemetry, exporter: InMemorySpanExporter
) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    millis = int(hour_ago.timestamp() * 1000)
    saga_id = str(uuid.UUID(int=millis << 80 | 7 << 76 | 2 << 62 | 5))
    traced.recorded("order", saga_id, [ev.SagaCompleted(Json("1"))], "{}")
    [span] = exporter.get_finished_spans()
    assert span.start_time == millis * 1_000_000
    assert span.status.status_code is StatusCode.UNSET


def test_the_providers_sampler_decides_for_instances_without_a_caller(
    exporter: InMemorySpanExporter,
) -> None:
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = EventTelemetry(CollectorRegistry(), provider)
    telemetry.recorded("order", new_id(), [succeeded("hold")], "{}")
    assert exporter.get_finished_spans() == ()
    telemetry.recorded(
        "order", new_id(), [succeeded("hold")], meta(traceparent=f"00-{TRACE}-{SPAN}-01")
    )
    assert len(exporter.get_finished_spans()) == 1
    provider.shutdown()


def test_memory_of_instances_under_way_is_bounded(traced: EventTelemetry) -> None:
    assert traced._spans is not None
    for number in range(10_050):
        traced.recorded("order", f"s{number}", [ev.StepStarted("order/0", "hold", 1)], "{}")
    assert len(traced._spans._trails) == 10_000


RECEIVED: list[bytes] = []


class _Collector(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        RECEIVED.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


def test_spans_reach_the_otlp_endpoint() -> None:
    """In a process of its own, because a tracer provider is set once and for all."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    code = (
        "from orchestrator.adapters.telemetry import initialize_observability\n"
        "from orchestrator.domain import events as ev\n"
        "telemetry = initialize_observability('shop', enable_prometheus=False)\n"
        "telemetry.recorded('order', 's1', [ev.SagaCompleted('1')], '{}')\n"
        "telemetry.close()\n"
    )
    RECEIVED.clear()
    with HTTPServer(("127.0.0.1", 0), _Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            subprocess.run(
                [sys.executable, "-c", code],
                env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "PYTHONPATH": ":".join(sys.path)},
                check=True, timeout=60,
            )  # fmt: skip
        finally:
            server.shutdown()
            thread.join(5)
    [body] = RECEIVED
    assert b"saga order" in body
    assert b"shop" in body


def test_importing_telemetry_does_not_load_opentelemetry() -> None:
    code = "import sys, orchestrator.adapters.telemetry\nprint('opentelemetry' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert said.stdout.strip() == "False"
