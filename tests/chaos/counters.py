"""What must have happened at least now and then, or a run has shown nothing."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.evidence import Evidence

SIGKILL = 9


def _takeovers(evidence: Evidence) -> int:
    return sum(
        int(line["message"].split("); ")[1].split()[0])
        for line in evidence.logs
        if "was found dead" in str(line.get("message"))
    )


def _repeated(evidence: Evidence) -> int:
    return sum(call.answer == "repeated" for call in evidence.calls)


def _killed_undoing(evidence: Evidence) -> int:
    return sum(call.kind == "undo" and call.struck == SIGKILL for call in evidence.calls)


def _early_signals(evidence: Evidence) -> int:
    early = 0
    for events in evidence.by_saga.values():
        waits = 0
        for event in events:
            waits += event.type == "WaitStarted"
            if event.type == "SignalReceived" and not waits:
                early += 1
    return early


def _cancels(outcome: str, error: str = "") -> Callable[[Evidence], int]:
    def count(evidence: Evidence) -> int:
        return sum(
            one["outcome"] == outcome and one.get("error", "") == error
            for one in evidence.asked("cancel")
        )

    return count


def _faults(kind: str, good: str = "") -> Callable[[Evidence], int]:
    """Faults of one kind that struck, by how often they did."""

    def count(evidence: Evidence) -> int:
        return sum(
            int(one["fired"])
            for one in evidence.told("fault")
            if str(one["kind"]).startswith(kind) and (not good or one.get(good))
        )

    return count


def _parked(evidence: Evidence) -> int:
    poison = {str(one["ref"]) for one in evidence.asked("start") if one["poison"]}
    return sum(row.status == "stuck" and row.key in poison for row in evidence.rows)


def _drained(evidence: Evidence) -> int:
    return sum(
        one["kind"] == "drain worker" and one.get("code") == 0 for one in evidence.told("fault")
    )


SOMETIMES: dict[str, Callable[[Evidence], int]] = {
    "takeover": _takeovers,
    "fenced append": lambda e: e.said("was refused at epoch"),
    "fenced renewal": lambda e: e.said("begins anew"),
    "unknown commit resolved as committed": _faults("lose commit after"),
    "unknown commit resolved as aborted": _faults("lose commit before"),
    "repeated effect found by its key": _repeated,
    "killed inside of a compensation": _killed_undoing,
    "rewind of the relay": lambda e: e.said("goes back to its checkpoint"),
    "fenced relay": lambda e: e.said("was taken over by another"),
    "signal before its wait": _early_signals,
    "cancel accepted": _cancels("ok"),
    "cancel too late": _cancels("fail", "TooLateError"),
    "poison parked": _parked,
    "drained on SIGTERM": _drained,
}


def count(evidence: Evidence) -> dict[str, int]:
    """Every counter."""
    return {name: counted(evidence) for name, counted in SOMETIMES.items()}
