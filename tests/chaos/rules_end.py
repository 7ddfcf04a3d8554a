"""Rules about how a run ends: everything has come to its right end, and nothing is left open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import ENDED, Evidence
from tests.chaos.rules import rule

CLAIMS = 10
"""So often a saga may be claimed without one new event."""
MORE = 4
"""Claims that say nothing: an answer that was lost is found out by one more."""
GRACE = 15.0


@rule("I18")
def come_to_an_end(evidence: Evidence) -> Iterator[str | None]:
    """After the healing every saga ends in time, as its script says; nobody is needed."""
    for late in evidence.told("late"):
        yield str(late["problem"])
    ends, cancels = _wanted(evidence)
    for row in evidence.rows:
        known = row.key in ends
        allowed = set(ends.get(str(row.key), ENDED)) if known else {*ENDED}
        asked = cancels.get(row.id, set())
        if asked & {"ok", "unknown"}:
            allowed.add("compensated")
        refused = any(event.type == "CancelRefused" for event in evidence.by_saga.get(row.id, []))
        if "ok" in asked and not refused:
            allowed.discard("completed")
        if row.status not in allowed:
            yield f"saga {row.id} ({row.name}, {row.key}): {row.status}, not {sorted(allowed)}"
        else:
            yield None
    held = [row.id for row in evidence.rows if row.owner is not None]
    yield f"still owned: {held[:5]}" if held else None


def _wanted(evidence: Evidence) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    ends = {str(one["ref"]): list(one["ends"]) for one in evidence.asked("start")}
    cancels: dict[str, set[str]] = defaultdict(set)
    for one in evidence.asked("cancel"):
        cancels[str(one["saga_id"])].add(str(one["outcome"]))
    return ends, cancels


@rule("I19")
def poison_is_parked(evidence: Evidence) -> Iterator[str | None]:
    """A saga that nobody can carry is parked after so many claims, and nobody else with it."""
    poison = {str(one["ref"]) for one in evidence.asked("start") if one["poison"]}
    for row in evidence.rows:
        if row.key in poison:
            yield None if row.status == "stuck" else f"poison {row.id} ({row.name}): {row.status}"
        if row.name == "chaos-deadly":
            deaths = sum(call.saga == row.id for call in evidence.calls)
            good = deaths <= CLAIMS + MORE
            yield None if good else f"saga {row.id} killed {deaths} workers"


@rule("I20")
def nothing_left(evidence: Evidence) -> Iterator[str | None]:
    """Processes end when told, with 0, and only then; no session stays behind."""
    for told in evidence.told("died"):
        yield None if told["usual"] else f"{told['who']} ended by itself with {told['code']}"
    for told in evidence.told("closed"):
        good = told["code"] == 0 and float(told["seconds"]) <= GRACE
        yield None if good else f"{told['who']}: code {told['code']} after {told['seconds']:.1f} s"
    for told in evidence.told("sessions"):
        yield None if not told["left"] else f"sessions left open: {told['left']}"
    for told in evidence.told("load ended"):
        yield None if told["code"] == 0 else f"the API process ended with {told['code']}"
    tracebacks = evidence.said("Traceback")
    yield f"{tracebacks} tracebacks in the logs" if tracebacks else None
