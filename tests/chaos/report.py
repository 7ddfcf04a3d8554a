"""The figures of a run, as data and as a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat
from typing import Any, TypedDict

from tests.chaos.evidence import Evidence
from tests.chaos.rules import Finding

SHOWN = 5


class Limit(TypedDict):
    """A figure that may not be larger. What is not `decisive` is shown only."""

    of: str
    figure: float
    limit: float
    decisive: bool


class Report(TypedDict):
    """What report.json holds."""

    verdict: str
    about: dict[str, Any]
    violations: dict[str, list[str]]
    missing: list[str]
    checked: dict[str, int]
    says: dict[str, str]
    faults: dict[str, dict[str, int]]
    sometimes: dict[str, int]
    takeovers: dict[str, dict[str, float]]
    figures: dict[str, Any]
    limits: list[Limit]


def measure(evidence: Evidence, findings: Sequence[Finding], sometimes: dict[str, int]) -> Report:
    """All figures, and the verdict: passed, violated, or void."""
    violations = {one.rule: one.violations for one in findings if one.violations}
    missing = _missing(evidence, sometimes)
    takeovers, figures = _takeovers(evidence), _figures(evidence)
    limits = list(_limits(evidence, takeovers, figures))
    over = [one for one in limits if one["decisive"] and one["figure"] > one["limit"]]
    verdict = "violated" if violations or over else "void" if missing else "passed"
    return Report(
        verdict=verdict,
        about={k: v for k, v in evidence.about.items() if k != "dsn"},
        violations=violations,
        missing=missing,
        checked={one.rule: one.checked for one in findings},
        says={one.rule: one.says for one in findings},
        faults=_faults(evidence),
        sometimes=sometimes,
        takeovers=takeovers,
        figures=figures,
        limits=limits,
    )


LONG_RUNS = ("fenced relay",)
"""What a short run cannot count on: a relay that wakes up may find a fault before its successor.

`tests/crash/test_relay_killed.py` stops relays past their lease in every run of the tests.
"""


def _missing(evidence: Evidence, sometimes: dict[str, int]) -> list[str]:
    """What happened too rarely, and what was planned and never struck."""
    floor = int(evidence.about.get("floor", 1))
    wanted = {name: 0 if name in LONG_RUNS and floor == 1 else floor for name in sometimes}
    rare = [f"{name}: {times}" for name, times in sometimes.items() if times < wanted[name]]
    silent = [
        f"fault without effect: {one['kind']} at {one.get('who', '')}"
        for one in evidence.told("fault")
        if not one["fired"]
    ]
    done = [row for row in evidence.rows if row.status == "completed"]
    return rare + silent + ([] if len(done) >= 10 * floor else [f"only {len(done)} completed"])


def _faults(evidence: Evidence) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"planned": 0, "struck": 0})
    for one in evidence.told("fault"):
        found[one["kind"]]["planned"] += 1
        found[one["kind"]]["struck"] += int(one["fired"])
    for call in evidence.calls:
        if call.mode != "ok":
            kind = f"ledger: {call.mode}"
            found[kind]["planned"] += 1
            found[kind]["struck"] += (
                1 if not call.mode.startswith(("kill", "stop")) or call.struck else 0
            )
    return dict(sorted(found.items()))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _takeovers(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Seconds until somebody else had the sagas, by what became of their worker."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for one in evidence.told("takeover"):
        beside = "" if one["clean"] else ", beside other faults"
        for saga, took in zip(one.get("sagas") or repeat(""), one["seconds"], strict=False):
            # A step that runs is let settle before its saga is handed over.
            busy = one["cause"] == "drain" and _under_way(evidence, saga, one["since"])
            seconds[f"{one['cause']}{', a step under way' if busy else ''}{beside}"].append(took)
    return {
        kind: {
            "sagas": len(found), "p50": percentile(found, 0.5), "p99": percentile(found, 0.99),
            "max": max(found),
        }
        for kind, found in sorted(seconds.items()) if found
    }  # fmt: skip


def _under_way(evidence: Evidence, saga: str, moment: float) -> bool:
    return any(
        call.saga == saga and call.received <= moment < (call.answered or 0)
        for call in evidence.calls
    )


def _limits(
    evidence: Evidence, takeovers: dict[str, dict[str, float]], figures: dict[str, Any]
) -> Iterator[Limit]:
    """What may take how long, and cost how much.

    Narrow limits decide in long runs only: in a short one, faults are five times as dense, and one
    busy second of the machine is a large share of it.
    """
    ttl = float(evidence.about.get("ttl", 0))
    long = int(evidence.about.get("floor", 1)) > 1
    for kind, most, decisive in (
        ("kill", ttl + 2, True), ("stop", ttl + 2, True), ("stop, presence cut", ttl + 2, True),
        ("drain", 1.0, long),
    ):  # fmt: skip
        if ttl and kind in takeovers:
            of = f"seconds until takeover, 99 of 100: {kind}"
            yield Limit(of=of, figure=takeovers[kind]["p99"], limit=most, decisive=decisive)
    back = figures["seconds to the first commit after Postgres was back"]["a worker was up"]
    of = "seconds to the first commit after Postgres was back"
    yield Limit(of=of, figure=max(back, default=0.0), limit=5.0, decisive=True)
    again = figures["amplification by faults"]
    yield Limit(of="calls for each effect", figure=again, limit=1.05, decisive=long)
    first, last = figures["memory in MB, first"], figures["memory in MB, last"]
    growth = max((last[who] / first[who] for who in first if who in last), default=0.0)
    of = "memory of a process, at the end over after a minute"
    yield Limit(of=of, figure=round(growth, 3), limit=1.1, decisive=long)


def _figures(evidence: Evidence) -> dict[str, Any]:
    effects = sum(one.kind == "do" for one in evidence.applications)
    again = sum(
        before.mode in ("ok", "hold") and call.kind == "do"
        for calls in evidence.calls_by_key.values()
        for before, call in pairwise(calls)
    )
    answers = Counter(str(one["outcome"]) for one in evidence.history if "outcome" in one)
    back = {
        "a worker was up": [o["seconds"] for o in evidence.told("first commit") if o["clean"]],
        "all were killed": [o["seconds"] for o in evidence.told("first commit") if not o["clean"]],
    }
    records = {(one.key, one.version) for one in evidence.records}
    memory = evidence.told("memory")
    rest = evidence.told("at rest")
    return {
        "sagas": len(evidence.rows),
        "ends": dict(Counter(row.status for row in evidence.rows)),
        "events": len(evidence.events),
        "records": len(evidence.records),
        "repeats in Kafka": len(evidence.records) - len(records),
        "effects": effects,
        "calls repeated though the ledger had answered": again,
        "amplification by faults": round((effects + again) / max(effects, 1), 3),
        "answers to clients": dict(answers),
        "seconds until all was at rest": rest[0]["seconds"] if rest else None,
        "seconds to the first commit after Postgres was back": back,
        "memory in MB, first": memory[0]["rss"] if memory else {},
        "memory in MB, last": memory[-1]["rss"] if memory else {},
    }


def spell(report: Report) -> str:
    """A table to be read."""
    about = report["about"]
    lines = [
        f"chaos, size {about.get('size')}, seed {about.get('seed')}, {about.get('broker')}:"
        f" {report['verdict'].upper()}",
        "",
        "faults                                    planned   struck",
        *(f"  {k:<40}{v['planned']:>7}{v['struck']:>9}" for k, v in report["faults"].items()),
        "",
        f"sometimes (at least {about.get('floor')} of each)",
        *(f"  {name:<40}{times:>7}" for name, times in report["sometimes"].items()),
        "",
        "takeover, seconds                           sagas      p50      p99      max",
    ]
    for kind, one in report["takeovers"].items():
        spelled = "".join(f"{one[name]:>9.2f}" for name in ("p50", "p99", "max"))
        lines.append(f"  {kind:<40}{one['sagas']:>7.0f}{spelled}")
    lines += ["", "figures", *(f"  {k}: {v}" for k, v in report["figures"].items())]
    lines += ["", "limits                                                       figure    limit"]
    for limit in report["limits"]:
        told = "" if limit["figure"] <= limit["limit"] else "OVER" if limit["decisive"] else "over"
        lines.append(f"  {limit['of']:<56}{limit['figure']:>9.2f}{limit['limit']:>9.2f}  {told}")
    lines += ["", "rules                                     checked violated"]
    for number, checked in report["checked"].items():
        wrong = report["violations"].get(number, [])
        lines.append(f"  {number:<4}{checked:>8}{len(wrong):>6}  {report['says'][number]}")
        lines += [f"      {problem[:300]}" for problem in wrong[:SHOWN]]
    if report["missing"]:
        lines += ["", "too little happened:", *(f"  {one}" for one in report["missing"])]
    return "\n".join(lines) + "\n"
