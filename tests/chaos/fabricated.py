"""A small run that never happened and in which all is well, for one thing to be spoilt at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.evidence import Application, Call, Event, Evidence, Message, Record, Row
from tests.chaos.rules_feed import murmur2
from tests.chaos.rules_log import link

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GOOD, BACK, TIMED = "saga-good", "saga-back", "saga-timed"
Steps = list[tuple[str, str, dict[str, Any]]]


def _log(saga: str, steps: Steps, first_position: int) -> list[Event]:
    import hashlib

    previous = hashlib.sha256(saga.encode()).digest()
    events = []
    for n, (type_, node, fact) in enumerate(steps):
        at = NOON + timedelta(seconds=n + 1)
        event = Event(
            saga, n + 1, first_position + n, type_, node, 1, 1, json.dumps(fact), "{}", at, b""
        )
        previous = link(previous, event)
        events.append(replace(event, hash=previous))
    return events


def _moved(saga: str, op: str) -> dict[str, Any]:
    return {
        "receipt": f"r-{saga}-{op}", "source": "account:1", "target": "account:2", "cents": 7,
    }  # fmt: skip


def _done(saga: str, op: str) -> tuple[str, str, dict[str, Any]]:
    return "StepSucceeded", op, {"step": op, "output": _moved(saga, op)}


def _effect(saga: str, op: str, kind: str, second: float) -> tuple[Call, Application]:
    key = f"{saga}/{op}" + ("/undo" if kind == "undo" else "")
    at = NOON.timestamp() + second
    answer = "undone" if kind == "undo" else "applied"
    source, target = ("account:1", "account:2") if kind == "do" else ("account:2", "account:1")
    call = Call(key, f"ref-{saga}", saga, op, kind, 100, at, "ok", answer, 0, at)
    receipt = f"r-{saga}-{op}" if kind == "do" else f"u-{saga}-{op}"
    return call, Application(
        key, f"ref-{saga}", saga, op, kind, source, target, 7, 100, at, receipt, 1
    )


def _record(event: Event) -> Record:
    value = {
        name: getattr(event, name) for name in ("type", "node", "attempt", "epoch", "position")
    }
    headers = (("saga_id", event.saga.encode()), ("version", str(event.version).encode()))
    partition = (murmur2(event.saga.encode()) & 0x7FFFFFFF) % 6
    told = json.dumps({**value, "data": event.fact}).encode()
    return Record(partition, event.position, event.saga, told, headers)


def good_run() -> Evidence:
    """Three sagas: one completed after a signal, one compensated by a cancel, one with a timer."""
    good = _log(GOOD, [
        ("SagaStarted", "", {"saga": "s"}),
        _done(GOOD, "debit"),
        ("WaitStarted", "wait", {"signal": "go"}),
        ("SignalReceived", "", {"signal": "go", "inbox_seq": 1}),
        _done(GOOD, "credit"),
        ("SagaCompleted", "", {"output": None}),
    ], 1)  # fmt: skip
    back = _log(BACK, [
        ("SagaStarted", "", {"saga": "s"}),
        _done(BACK, "debit"),
        _done(BACK, "credit"),
        ("StepStarted", "late", {"step": "late"}),
        ("CancelRequested", "", {"inbox_seq": 1}),
        ("CompensationStarted", "", {"reason": "x"}),
        ("StepCompensated", "late", {"step": "late"}),
        ("StepCompensated", "credit", {"step": "credit"}),
        ("StepCompensated", "debit", {"step": "debit"}),
        ("SagaCompensated", "", {"reason": "x"}),
    ], 20)  # fmt: skip
    due = (NOON + timedelta(seconds=2.5)).isoformat()
    timed = _log(TIMED, [
        ("SagaStarted", "", {"saga": "s"}),
        ("TimerSet", "nap", {"due_at": due}),
        ("TimerFired", "nap", {}),
        ("SagaCompleted", "", {"output": None}),
    ], 40)  # fmt: skip
    effects = [
        _effect(GOOD, "debit", "do", 1.5), _effect(GOOD, "credit", "do", 4.5),
        _effect(BACK, "debit", "do", 1.5), _effect(BACK, "credit", "do", 2.5),
        _effect(BACK, "late", "do", 3.5), _effect(BACK, "late", "undo", 6.5),
        _effect(BACK, "credit", "undo", 7.5), _effect(BACK, "debit", "undo", 8.5),
    ]  # fmt: skip
    events = [*good, *back, *timed]
    run = Evidence(
        about={"floor": 1, "ended": NOON.timestamp() + 60},
        events=events,
        rows=[
            Row(GOOD, "s", "k-good", "completed", len(good), 1, None, None, 1, None, {"ref": "g"}),
            Row(BACK, "s", "k-back", "compensated", len(back), 1, None, None, 1, None, {}),
            Row(TIMED, "s", "k-timed", "completed", len(timed), 1, None, None, 0, None, {}),
        ],
        inbox=[Message(GOOD, 1, "signal", "d-signal"), Message(BACK, 1, "cancel", "d-cancel")],
        calls=[call for call, _ in effects],
        applications=[application for _, application in effects],
        records=[_record(event) for event in events],
    )
    run.history = [
        _asked("start", GOOD, answer=GOOD, ref="k-good", ends=["completed"], poison=False),
        _asked("start", BACK, answer=BACK, ref="k-back", ends=["completed"], poison=False),
        _asked("start", TIMED, answer=TIMED, ref="k-timed", ends=["completed"], poison=False),
        _asked("signal", GOOD, dedupe="d-signal"),
        _asked("cancel", BACK, dedupe="d-cancel"),
    ]
    run.nemesis = [
        {"what": "closed", "who": "worker0", "code": 0, "seconds": 0.1},
        {"what": "sessions", "left": []},
        {"what": "replay", "saga": GOOD, "agrees": True},
    ]
    return run


def _asked(op: str, saga: str, **more: Any) -> dict[str, Any]:
    called = NOON.timestamp() + 4.4
    return {"op": op, "saga_id": saga, "outcome": "ok", "called": called, "took": 0.1, **more}
