"""Rules about the log of each instance: complete, fenced, ended once, caused, chained."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tests.chaos.evidence import TERMINAL, Event, Evidence
from tests.chaos.rules import rule

SLACK = 0.25
"""Each worker knows the database's clock only as well as its wires are fast, and some are slowed."""


@rule("I1")
def gapless(evidence: Evidence) -> Iterator[str | None]:
    """Versions are 1..n without a gap, the row knows n, and no position occurs twice."""
    for row in evidence.rows:
        versions = [event.version for event in evidence.by_saga.get(row.id, [])]
        good = versions == list(range(1, row.head + 1))
        yield None if good else f"saga {row.id}: head {row.head}, versions {versions[-5:]}"
    positions = [event.position for event in evidence.events]
    doubled = len(positions) - len(set(positions))
    yield None if not doubled else f"{doubled} positions occur twice"
    strangers = evidence.by_saga.keys() - evidence.row.keys()
    yield None if not strangers else f"events of sagas that are not there: {sorted(strangers)[:3]}"


@rule("I2")
def fenced(evidence: Evidence) -> Iterator[str | None]:
    """Epochs never fall within a log, were all handed out by claims, and commit in their order."""
    for saga, events in evidence.by_saga.items():
        for before, event in itertools.pairwise(events):
            if event.epoch < before.epoch:
                yield f"saga {saga}: version {event.version} has epoch {event.epoch} after {before.epoch}"
            elif event.position <= before.position:
                yield f"saga {saga}: version {event.version} was written before its forerunner"
            else:
                yield None
        row = evidence.row.get(saga)
        if row is not None and events[-1].epoch > row.epoch:
            yield f"saga {saga}: epoch {events[-1].epoch} was never handed out ({row.epoch})"


@rule("I3")
def ended_once(evidence: Evidence) -> Iterator[str | None]:
    """An end is the last event, there is one, and the row says the same as the log."""
    for row in evidence.rows:
        events = evidence.by_saga.get(row.id, [])
        yield _end_problem(row.id, row.status, events)


def _end_problem(saga: str, status: str, events: list[Event]) -> str | None:
    began = [event.version for event in events if event.type == "SagaStarted"]
    if began not in ([1], []) or (not began and events and events[0].type != "SagaStuck"):
        return f"saga {saga}: SagaStarted at {began}"
    for event, after in itertools.pairwise(events):
        goes_on = event.type == "SagaCompleted" and after.type == "UndoRequested"
        if event.type in TERMINAL and not goes_on:
            return f"saga {saga}: {after.type} follows {event.type}"
    last = events[-1].type if events else ""
    told = TERMINAL.get(last) or ("stuck" if last == "SagaStuck" else None)
    at_rest = status in TERMINAL.values() or status == "stuck"
    if (told or at_rest) and told != status:
        return f"saga {saga}: the row says {status}, the log ends with {last or 'nothing'}"
    return None


@rule("I13")
def timers(evidence: Evidence) -> Iterator[str | None]:
    """A timer fires once, never early, and is not forgotten; no retry begins before its time."""
    ended = float(evidence.about.get("ended", 0))
    for saga, events in evidence.by_saga.items():
        due: dict[str, float] = {}
        retries: dict[tuple[str, int], float] = {}
        for event in events:
            match event.type:
                case "TimerSet":
                    due[event.node] = _when(event.fact["due_at"])
                    yield None
                case "TimerFired":
                    limit = due.pop(event.node, None)
                    if limit is None:
                        yield f"saga {saga}: {event.node} fired without a timer, or twice"
                    elif event.seconds < limit - SLACK:
                        yield f"saga {saga}: {event.node} fired {limit - event.seconds:.3f} s early"
                    else:
                        yield None
                case "RetryScheduled":
                    retries[event.fact["target"], event.attempt] = _when(event.fact["due_at"])
                case "StepSucceeded" | "StepFailed" | "StepInDoubt" | "StepStarted":
                    limit = retries.get((event.node, event.attempt))
                    early = limit is not None and event.seconds < limit - SLACK
                    yield f"saga {saga}: {event.node} was tried again too early" if early else None
        row = evidence.row.get(saga)
        if row is not None and row.status in ("running", "waiting"):
            for node, limit in due.items():
                late = limit < ended - 5
                yield f"saga {saga}: the timer of {node} never fired" if late else None


@rule("I17")
def replayed(evidence: Evidence) -> Iterator[str | None]:
    """Folding a history again gives what the row says."""
    for told in evidence.told("replay"):
        yield None if told["agrees"] else f"saga {told['saga']}: {told['said']}"


@rule("I21")
def chained(evidence: Evidence) -> Iterator[str | None]:
    """Each hash is sha256 of the hash before and the row, from the hash of the saga's id on."""
    for saga, events in evidence.by_saga.items():
        previous = hashlib.sha256(saga.encode()).digest()
        for event in events:
            previous = link(previous, event)
            if previous != event.hash:
                yield f"saga {saga}: the chain breaks at version {event.version}"
                break
        else:
            yield None


def link(previous: bytes, event: Event) -> bytes:
    """The rule of the chain as it is documented, worked out here a second time."""
    micros = (event.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    columns = [
        event.saga,
        event.version,
        event.type,
        event.node,
        event.attempt,
        event.epoch,
        micros,
    ]
    head = "".join(f"{column}\n" for column in [*columns, len(event.meta)])
    return hashlib.sha256(previous + (head + event.meta + event.data).encode()).digest()


def _when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
