"""Rules about what clients were told: what was acknowledged is there, once, and had its effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import TERMINAL, Event, Evidence, Told
from tests.chaos.rules import rule
from tests.chaos.rules_log import SLACK

HEARD = ("SignalReceived", "SignalRejected", "CancelRequested", "CancelRefused")
ANSWER_WITHIN = 16.0
"""Two time-outs of a command, and opening a connection, and a bit."""


@rule("I10")
def durable(evidence: Evidence) -> Iterator[str | None]:
    """What was acknowledged is there; what was refused is not."""
    kept = {message.dedupe for message in evidence.inbox}
    maybe = {
        str(one["dedupe"])
        for op in ("signal", "cancel")
        for one in evidence.asked(op)
        if one["outcome"] != "fail"
    }
    for one in evidence.asked("start"):
        if one["outcome"] == "ok":
            row = evidence.row.get(str(one["answer"]))
            good = row is not None and row.key == one["ref"]
            yield None if good else f"{one['ref']}: acknowledged as {one['answer']}, not there"
    for op in ("signal", "cancel"):
        for one in evidence.asked(op):
            key = str(one["dedupe"])
            if one["outcome"] == "ok":
                yield None if key in kept else f"{op} {key}: acknowledged, not there"
            elif one["outcome"] == "fail" and key not in maybe:
                yield f"{op} {key}: refused, and there all the same" if key in kept else None
    for row in evidence.rows:
        stored = row.input.get("source") == "nobody"
        yield f"saga {row.id}: has the input of a start that was refused" if stored else None


@rule("I11")
def one_for_a_key(evidence: Evidence) -> Iterator[str | None]:
    """One saga for a key, one answer for a key, a conflict for another input."""
    sagas: dict[str, list[str]] = defaultdict(list)
    for row in evidence.rows:
        if row.key is not None:
            sagas[row.key].append(row.id)
    for key, ids in sagas.items():
        yield None if len(ids) == 1 else f"key {key}: sagas {ids}"
    answers: dict[str, set[str]] = defaultdict(set)
    for one in evidence.asked("start"):
        if one["outcome"] == "ok":
            answers[str(one["ref"])].add(str(one["answer"]))
    for key, told in answers.items():
        yield None if len(told) == 1 else f"key {key}: answered with {sorted(told)}"
    for one in evidence.asked("start other"):
        wrong = one["outcome"] == "ok"
        yield f"key {one['ref']}: another input was taken as {one.get('answer')}" if wrong else None


@rule("I12")
def heard_once(evidence: Evidence) -> Iterator[str | None]:
    """Every message is heard once, in order; none is left when its saga has ended."""
    for row in evidence.rows:
        heard = [
            int(event.fact["inbox_seq"])
            for event in evidence.by_saga.get(row.id, [])
            if event.type in HEARD and not _answers_again(evidence, event)
        ]
        if heard != sorted(set(heard)):
            yield f"saga {row.id}: heard its messages as {heard}"
        sent = sorted(
            message.seq
            for message in evidence.inbox
            if message.saga == row.id and message.kind in ("signal", "cancel")
        )
        if not sent and not heard:
            continue
        if extra := sorted(set(heard) - set(sent)):
            yield f"saga {row.id}: heard {extra}, which nobody sent"
        elif row.status in TERMINAL.values() and (missed := sorted(set(sent) - set(heard))):
            yield f"saga {row.id}: ended without hearing {missed}"
        else:
            yield None


@rule("I14")
def cancelled(evidence: Evidence) -> Iterator[str | None]:
    """An accepted cancel never ends as completed, unless it met a running pivot and the log says so;
    one that is too late is after the end or the pivot."""
    kept = {message.dedupe for message in evidence.inbox}
    for one in evidence.asked("cancel"):
        row = evidence.row.get(str(one["saga_id"]))
        if row is None:
            continue
        if one["outcome"] == "ok":
            refused = any(e.type == "CancelRefused" for e in evidence.by_saga.get(row.id, []))
            wrong = row.status == "completed" and not refused
            yield f"saga {row.id}: a cancel was accepted, and it completed" if wrong else None
        elif (
            one["outcome"] == "fail"
            and one["error"] == "TooLateError"
            and one["dedupe"] not in kept
        ):
            yield _too_late_problem(evidence, row.id, one)


def _answers_again(evidence: Evidence, event: Event) -> bool:
    """A cancel that was taken up while the pivot ran is refused when the pivot is done."""
    return event.type == "CancelRefused" and any(
        before.type == "CancelRequested" and before.fact["inbox_seq"] == event.fact["inbox_seq"]
        for before in evidence.by_saga[event.saga]
    )


def _too_late_problem(evidence: Evidence, saga: str, one: Told) -> str | None:
    limit = float(one["called"]) + float(one["took"]) + SLACK
    before = [
        event
        for event in evidence.by_saga.get(saga, [])
        if event.type in (*TERMINAL, "PivotPassed") and event.seconds <= limit
    ]
    return None if before else f"saga {saga}: a cancel was too late, but it had not ended"


@rule("I24")
def answered(evidence: Evidence) -> Iterator[str | None]:
    """Every call is answered in time, and with an answer that clients know."""
    for one in evidence.history:
        if "outcome" not in one:
            continue
        if one["outcome"] == "broken":
            yield f"{one['op']} {one.get('ref')}: {one['error']}"
        elif float(one["took"]) > ANSWER_WITHIN:
            yield f"{one['op']} {one.get('ref')}: took {one['took']:.1f} s"
        else:
            yield None
