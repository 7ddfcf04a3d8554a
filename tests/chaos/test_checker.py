"""The checker of the chaos runs: silent where all is well, and each thing that is wrong is named."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.counters import count
from tests.chaos.evidence import Evidence, Message
from tests.chaos.fabricated import BACK, GOOD, NOON, TIMED, good_run
from tests.chaos.report import measure, percentile, spell
from tests.chaos.rules import RULES, judge
from tests.chaos.rules_feed import murmur2

FILES = (
    "checker", "counters", "evidence", "report", "rules", "rules_api", "rules_effects",
    "rules_end", "rules_feed", "rules_log",
)  # fmt: skip
OUTSIDE = {"psycopg", "confluent_kafka"}
Spoil = Callable[[Evidence], None]


def _violated(run: Evidence) -> dict[str, list[str]]:
    return {one.rule: one.violations for one in judge(run) if one.violations}


def test_a_run_in_which_all_is_well_violates_nothing_and_every_rule_looks_at_something() -> None:
    findings = judge(good_run())

    assert {one.rule: one.violations for one in findings if one.violations} == {}
    assert [one.rule for one in findings if not one.checked] == ["I19"]


# ---------------------------------------------------------------------------- one thing spoilt


def _event(saga: str, version: int, **fields: Any) -> Spoil:
    def spoil(run: Evidence) -> None:
        run.events = [
            replace(e, **fields) if (e.saga, e.version) == (saga, version) else e
            for e in run.events
        ]

    return spoil


def _row(saga: str, **fields: Any) -> Spoil:
    def spoil(run: Evidence) -> None:
        run.rows = [replace(row, **fields) if row.id == saga else row for row in run.rows]

    return spoil


def _book(key: str, **fields: Any) -> Spoil:
    def spoil(run: Evidence) -> None:
        run.applications = [
            replace(one, **fields) if one.key == key else one for one in run.applications
        ]

    return spoil


def _strike(key: str) -> Spoil:
    def spoil(run: Evidence) -> None:
        run.applications = [one for one in run.applications if one.key != key]

    return spoil


def _call(like: str, **fields: Any) -> Spoil:
    """One more call, like that of key *like* but for some fields."""

    def spoil(run: Evidence) -> None:
        [call] = [one for one in run.calls if one.key == like]
        run.calls.append(replace(call, **fields))

    return spoil


def _told(op: str, **fields: Any) -> Spoil:
    def spoil(run: Evidence) -> None:
        run.history = [{**one, **fields} if one["op"] == op else one for one in run.history]

    return spoil


def _more(part: str, thing: Any) -> Spoil:
    def spoil(run: Evidence) -> None:
        getattr(run, part).append(thing)

    return spoil


def _lose_event(run: Evidence) -> None:
    run.events = [e for e in run.events if (e.saga, e.version) != (GOOD, 3)]


def _publish_twice(run: Evidence) -> None:
    run.records.append(replace(run.records[0], offset=999))


def _publish_twice_otherwise(run: Evidence) -> None:
    record = run.records[0]
    run.records.append(replace(record, offset=999, value=b"{}" + record.value))


def _publish_out_of_order(run: Evidence) -> None:
    run.records = [
        replace(r, offset=5_000) if (r.key, r.version) == (GOOD, 2) else r for r in run.records
    ]


def _publish_less(run: Evidence) -> None:
    run.records = [r for r in run.records if r.key != TIMED]


def _publish_another(run: Evidence) -> None:
    run.records = [
        replace(r, value=r.value.replace(b"SagaStarted", b"SagaStopped")) for r in run.records
    ]


def _forget_message(run: Evidence) -> None:
    run.inbox = [message for message in run.inbox if message.saga != GOOD]


def _never_doubted(run: Evidence) -> None:
    _strike(f"{BACK}/late/undo")(run)
    run.calls = [call for call in run.calls if call.key != f"{BACK}/late/undo"]


LATE = NOON.timestamp() + 50

SPOILT: list[tuple[str, str, Spoil]] = [
    ("I1", "a gap in the versions", _lose_event),
    ("I1", "a head that is not the last version", _row(GOOD, head=7)),
    ("I1", "one position twice", _event(GOOD, 2, position=20)),
    ("I2", "an old owner after a new one", _event(GOOD, 2, epoch=5)),
    ("I2", "an epoch that no claim gave", _event(GOOD, 6, epoch=9)),
    ("I2", "a later version committed before", _event(GOOD, 4, position=0)),
    ("I3", "an event after the end", _event(GOOD, 5, type="SagaCompleted")),
    ("I3", "a row that says otherwise", _row(GOOD, status="compensated")),
    ("I4", "a success that the books do not have", _strike(f"{GOOD}/credit")),
    ("I4", "another receipt", _book(f"{GOOD}/credit", receipt="other")),
    ("I4", "an undo that the books do not have", _strike(f"{BACK}/credit/undo")),
    ("I4", "a failure that nobody heard of", _event(TIMED, 3, type="StepFailed")),
    ("I5", "a second key for one effect", _call(f"{GOOD}/debit", key=f"{GOOD}/debit/2")),
    ("I5", "a call repeated without a fault", _call(f"{GOOD}/debit", received=LATE)),
    ("I5", "a step that succeeded twice", _event(GOOD, 5, node="debit")),
    ("I6", "an effect that stands", _book(f"{BACK}/debit/undo", effective=0)),
    ("I6", "undone in the order of doing", _book(f"{BACK}/debit/undo", applied=NOON.timestamp())),
    ("I6", "completed and undone", _row(BACK, status="completed")),
    ("I7", "a doubt that nobody settled", _never_doubted),
    ("I8", "an effect after the end", _book(f"{GOOD}/credit", applied=LATE)),
    ("I9", "money that is elsewhere", _book(f"{GOOD}/credit", cents=8)),
    ("I9", "money left on its way", _book(f"{GOOD}/credit", target="transit:x")),
    ("I10", "an acknowledged start that is not there", _told("start", answer="nobody")),
    ("I10", "an acknowledged signal that is not there", _forget_message),
    ("I10", "a refused cancel that is there", _told("cancel", outcome="fail", error="NotFoundError")),
    ("I11", "two sagas for one key", _row(BACK, key="k-good")),
    ("I11", "two answers for one key", _told("start", ref="k-good")),
    ("I12", "a message heard twice", _event(GOOD, 3, data='{"inbox_seq": 1}', type="SignalReceived")),
    ("I12", "a message never heard", _more("inbox", Message(GOOD, 2, "signal", "d-2"))),
    ("I12", "a message that nobody sent", _forget_message),
    ("I13", "a timer too early", _event(TIMED, 3, at=NOON)),
    ("I13", "a timer that fired twice", _event(TIMED, 4, type="TimerFired", node="nap")),
    ("I14", "a cancel that was accepted and completed", _row(BACK, status="completed")),
    ("I15", "a repeat", _publish_twice),
    ("I15", "a repeat that differs", _publish_twice_otherwise),
    ("I15", "first occurrences out of order", _publish_out_of_order),
    ("I15", "a saga that was not published", _publish_less),
    ("I15", "a record that says something else", _publish_another),
    ("I16", "a record in a wrong partition", lambda run: run.records.append(
        replace(run.records[0], partition=(run.records[0].partition + 1) % 6))),
    ("I17", "a history that folds to something else", _more(
        "nemesis", {"what": "replay", "saga": GOOD, "agrees": False, "said": "no"})),
    ("I18", "a saga that did not end", _row(TIMED, status="waiting")),
    ("I18", "a saga that ended otherwise", _row(GOOD, status="terminated")),
    ("I18", "an owner that is left", _row(GOOD, owner="somebody")),
    ("I18", "an end that came too late", _more("nemesis", {"what": "late", "problem": "no end"})),
    ("I19", "poison that is not parked", _told("start", poison=True)),
    ("I20", "a process that ended by itself", _more(
        "nemesis", {"what": "died", "who": "w", "at": 0.0, "code": 1, "usual": False})),
    ("I20", "a session that is left", _more("nemesis", {"what": "sessions", "left": ["one"]})),
    ("I20", "a drain that failed", _more(
        "nemesis", {"what": "closed", "who": "w", "code": 1, "seconds": 0.1})),
    ("I20", "a traceback in a log", _more("logs", {"message": "Traceback (most recent call last):"})),
    ("I21", "a row that was changed", _event(GOOD, 2, attempt=2)),
    ("I21", "a payload that was changed", _event(GOOD, 2, meta="{ }")),
    ("I23", "two owners under one claim", _call(f"{GOOD}/debit", pid=101, received=LATE)),
    ("I24", "an answer that nobody knows", _told("signal", outcome="broken", error="boom")),
    ("I24", "an answer that took too long", _told("signal", took=60.0)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [(rule, spoil) for rule, _, spoil in SPOILT],
    ids=[f"{rule}: {what}" for rule, what, _ in SPOILT],
)
def test_what_is_wrong_is_reported_under_its_rule(rule: str, spoil: Spoil) -> None:
    run = good_run()
    spoil(run)

    assert rule in _violated(run)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "stop worker", "pid": 101},
        {"kind": "cut wires of worker", "pid": 101},
        {"kind": "terminate sessions"},
    ],
    ids=["stopped", "cut off", "all were cut off"],
)
@pytest.mark.parametrize(
    ("after", "applied", "violated"),
    [(-1.0, False, False), (0.5, False, False), (0.5, True, True), (9.0, False, True)],
    ids=["meanwhile", "just after", "but it was applied", "long after"],
)
def test_one_who_was_out_of_touch_may_call_in_vain_before_it_hears_that_it_was_replaced(
    after: float, applied: bool, violated: bool, fault: dict[str, Any]
) -> None:
    run, key = good_run(), f"{GOOD}/debit"
    run.nemesis.append({"what": "fault", "begun": LATE - 5, "ended": LATE, **fault})
    _call(key, pid=101, received=LATE + after)(run)
    if applied:
        _book(key, pid=101, applied=LATE + after)(run)

    assert ("I23" in _violated(run)) is violated


def test_the_ledger_may_have_been_who_stopped_it() -> None:
    run, key = good_run(), f"{GOOD}/debit"
    _call(key, pid=101, received=LATE, struck=19, key="another/debit", saga="another")(run)
    _call(key, pid=101, received=LATE + 4)(run)
    assert "I23" not in _violated(run)


def test_every_rule_has_something_that_violates_it() -> None:
    judge(Evidence())
    assert {rule for rule, _, _ in SPOILT} == set(RULES)


# ---------------------------------------------------------------------------- void, figures, hashes


def test_a_run_in_which_too_little_happened_is_void_and_says_what_was_missing() -> None:
    run = good_run()
    report = measure(run, judge(run), count(run))

    assert report["verdict"] == "void"
    assert "takeover: 0" in report["missing"]
    assert "VOID" in spell(report)


def test_a_planned_fault_that_never_struck_makes_a_run_void() -> None:
    run = good_run()
    run.nemesis.append(
        {"what": "fault", "kind": "kill", "who": "x", "fired": 0, "begun": 0, "ended": 0}
    )
    report = measure(run, judge(run), dict.fromkeys(count(run), 9))

    assert "fault without effect: kill at x" in report["missing"]


def _took(cause: str, seconds: float) -> dict[str, Any]:
    return {
        "what": "takeover", "cause": cause, "who": "worker0", "since": LATE, "sagas": [GOOD],
        "seconds": [seconds], "clean": True, "never": [],
    }  # fmt: skip


@pytest.mark.parametrize("floor", [1, 5], ids=["short", "long"])
@pytest.mark.parametrize(
    ("told", "narrow"),
    [
        (_took("kill", 28.5), False),
        (_took("stop", 28.5), False),
        (_took("drain", 1.5), True),
        ({"what": "first commit", "seconds": 6.0, "clean": True}, False),
        ({"what": "memory", "rss": {"worker0": 95.0}}, True),
    ],
    ids=["killed", "stopped", "told to end", "Postgres was back", "memory"],
)
def test_what_takes_too_long_or_costs_too_much_is_a_violation(
    told: dict[str, Any], narrow: bool, floor: int
) -> None:
    run = good_run()
    run.about |= {"ttl": 26.0, "floor": floor}
    run.nemesis.append({"what": "memory", "rss": {"worker0": 80.0}})
    run.nemesis.append(told)
    report = measure(run, judge(run), dict.fromkeys(count(run), 99))

    assert [one["of"] for one in report["limits"] if one["figure"] > one["limit"]] != []
    assert (report["verdict"] == "violated") is (floor > 1 or not narrow)
    assert ("OVER" in spell(report)) is (floor > 1 or not narrow)


def test_who_is_told_to_end_may_let_a_step_settle() -> None:
    run = good_run()
    _call(f"{GOOD}/debit", received=LATE - 1, answered=LATE + 3)(run)
    run.nemesis.append(_took("drain", 3.1))
    report = measure(run, judge(run), count(run))

    assert set(report["takeovers"]) == {"drain, a step under way"}


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99)] == [51.0, 100.0]
    assert percentile([3.0], 0.99) == 3.0


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_keys_are_hashed_as_kafka_does(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0xFFFFFFFF


def test_the_checker_imports_nothing_of_the_product() -> None:
    folder = Path(__file__).parent
    allowed = {f"tests.chaos.{name}" for name in FILES} | {"tests.chaos"}
    for name in FILES:
        tree = ast.parse((folder / f"{name}.py").read_text("utf-8"))
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for found in names:
                top = found.split(".")[0]
                known = top in sys.stdlib_module_names or top in OUTSIDE or found in allowed
                assert known, f"{name}.py imports {found}"
