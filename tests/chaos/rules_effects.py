"""Rules about effects: caused, applied once, undone in order, nothing lost, by one owner."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import ENDED, TERMINAL, Call, Event, Evidence
from tests.chaos.rules import rule
from tests.chaos.rules_log import SLACK

NOT_UNDONE = ("notify", "murder", "mumble")
"""Steps without an undo."""
ANSWERED = ("ok", "hold")
"""Modes of the ledger in which its caller gets a true answer."""
MARGIN = 12.0
"""A call that is repeated was lost at most so long before: a step's time-out and a bit."""
SIGSTOP = 19
PAUSE = 3.0
"""Seconds for which the ledger stops a caller."""
AWAKE = 6.0
"""Seconds after a fault in which its victim may not have heard yet that it was replaced.

A renewal tells it: they are a second apart, and one may take as long as the command time-out.
"""
OF_ONE = ("stop worker", "cut wires", "black hole", "slow wires", "lose commit")
"""Faults after which a process that lives may be missed by the others."""
OF_ALL = ("terminate sessions", "crash postgres")


@rule("I4")
def caused(evidence: Evidence) -> Iterator[str | None]:
    """What the log says was done is in the books, with the same receipt; failures were heard of."""
    children = {
        f"{event.saga}/{event.node}" for event in evidence.events if event.type == "ChildRequested"
    }
    for event in evidence.events:
        key = f"{event.saga}/{event.node}"
        match event.type:
            case "StepSucceeded":
                yield _receipt_problem(evidence, key, event, event.fact["output"])
            case "ProbeAnswered" if event.fact["answer"] == "happened":
                yield _receipt_problem(evidence, key, event, event.fact["output"])
            case "ProbeAnswered" if event.fact["answer"] == "not_happened":
                found = evidence.applied.get(key)
                done = found is not None and found.kind == "do"
                yield f"{key}: said not to have happened, but it did" if done else None
            case "StepFailed":
                heard = key in evidence.calls_by_key
                yield None if heard else f"{key}: failed, but the ledger never heard of it"
            case "StepCompensated" if key not in children:
                heard = f"{key}/undo" in evidence.applied
                yield None if heard else f"{key}: said to be undone, but the books have no undo"


def _receipt_problem(evidence: Evidence, key: str, event: Event, output: object) -> str | None:
    found = evidence.applied.get(key)
    if found is None or found.kind != "do":
        return f"{key}: version {event.version} says {event.type}, but nothing was applied"
    receipt = output.get("receipt") if isinstance(output, dict) else output
    if isinstance(receipt, str) and receipt != found.receipt:
        return f"{key}: the log has receipt {receipt}, the books have {found.receipt}"
    return None


@rule("I5")
def once(evidence: Evidence) -> Iterator[str | None]:
    """An effect has one key, and every call too many is explained by a fault."""
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in evidence.calls:
        if call.kind == "do":
            keys[call.saga, call.op].add(call.key)
    for (saga, op), found in keys.items():
        yield (
            None if len(found) == 1 else f"saga {saga}: {op} has {len(found)} keys: {sorted(found)}"
        )
    faults = _fault_windows(evidence)
    for key, calls in evidence.calls_by_key.items():
        for before, call in itertools.pairwise(calls):
            known = before.mode not in ANSWERED or _explained(before, call, faults)
            yield None if known else f"{key}: called again at {call.received:.2f} without any fault"
    succeeded: dict[str, int] = defaultdict(int)
    for event in evidence.events:
        if event.type == "StepSucceeded":
            succeeded[f"{event.saga}/{event.node}"] += 1
    for key, times in succeeded.items():
        yield None if times == 1 else f"{key}: succeeded {times} times"


def _fault_windows(evidence: Evidence) -> list[tuple[float, float]]:
    faults = [(float(one["begun"]), float(one["ended"])) for one in evidence.told("fault")]
    faults += [(float(one["at"]), float(one["at"])) for one in evidence.told("died")]
    return faults + [(call.received, call.received + 4) for call in evidence.calls if call.struck]


def _explained(before: Call, call: Call, faults: list[tuple[float, float]]) -> bool:
    return any(
        begun <= call.received and ended >= before.received - MARGIN for begun, ended in faults
    )


@rule("I6")
def undone(evidence: Evidence) -> Iterator[str | None]:
    """Compensated: all undone once, in reverse order. Completed: nothing undone. Stuck: a suffix."""
    done: dict[str, list[str]] = defaultdict(list)
    for application in evidence.applications:
        if application.kind == "do" and application.op not in NOT_UNDONE:
            done[application.saga].append(application.key)
    for row in evidence.rows:
        keys = done.get(row.id, [])
        undos = {key: evidence.applied.get(f"{key}/undo") for key in keys}
        times = {key: undo.applied for key, undo in undos.items() if undo and undo.effective}
        order = [key for key in _order(evidence, row.id) if key in undos]
        match row.status:
            case "compensated":
                left = sorted(set(keys) - set(times))
                yield f"saga {row.id} is compensated, but {left} stand" if left else None
                yield _order_problem(row.id, [times[key] for key in order if key in times])
            case "completed":
                yield f"saga {row.id} is completed, but undone: {sorted(times)}" if times else None
            case "stuck":
                kept = [key not in times for key in order]
                good = kept == sorted(kept, reverse=True)
                yield None if good else f"saga {row.id} is stuck, and what is undone is no suffix"


def _order(evidence: Evidence, saga: str) -> list[str]:
    """Keys of steps by the time when the log had them done."""
    return [
        f"{saga}/{event.node}"
        for event in evidence.by_saga.get(saga, [])
        if event.type == "StepSucceeded"
        or (event.type == "ProbeAnswered" and event.fact["answer"] == "happened")
    ]


def _order_problem(saga: str, times: list[float]) -> str | None:
    backwards = all(a > b for a, b in itertools.pairwise(times))
    return None if backwards else f"saga {saga}: undone in another order than backwards: {times}"


@rule("I7")
def perhaps(evidence: Evidence) -> Iterator[str | None]:
    """What may have happened when a saga turned round was asked about or undone."""
    for row in evidence.rows:
        if row.status != "compensated":
            continue
        open_: set[str] = set()
        for event in evidence.by_saga.get(row.id, []):
            match event.type:
                case "StepStarted" | "StepInDoubt":
                    open_.add(event.node)
                case "StepSucceeded" | "ProbeAnswered":
                    open_.discard(event.node)
                case "StepFailed" if not _ever_doubted(evidence, row.id, event):
                    open_.discard(event.node)
                case "CompensationStarted":
                    break
        for node in open_:
            key = f"{row.id}/{node}"
            calls = evidence.calls_by_key.get(key, [])
            op = calls[0].op if calls else "notify"
            asked = any(call.kind == "probe" for call in calls) or f"{key}/undo" in evidence.applied
            good = op in NOT_UNDONE or asked
            yield None if good else f"{key}: may have happened, and nobody undid it or asked"


def _ever_doubted(evidence: Evidence, saga: str, failed: Event) -> bool:
    return any(
        event.type == "StepInDoubt" and event.node == failed.node
        for event in evidence.by_saga[saga][: failed.version]
    )


@rule("I8")
def after_the_end(evidence: Evidence) -> Iterator[str | None]:
    """Nothing is applied after the end of its saga."""
    ends: dict[str, float] = {}
    for saga, events in evidence.by_saga.items():
        if events[-1].type in TERMINAL:
            ends[saga] = events[-1].seconds
    for application in evidence.applications:
        end = ends.get(application.saga)
        if end is None or application.kind == "barred":
            continue
        late = application.applied > end + 2 * SLACK
        yield (
            f"{application.key}: applied {application.applied - end:.2f} s after the end"
            if late
            else None
        )


@rule("I9")
def conserved(evidence: Evidence) -> Iterator[str | None]:
    """Money is where the log says that it went; nothing is left on its way."""
    by_books: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    whole: dict[str, int] = defaultdict(int)
    for one in evidence.applications:
        if one.kind == "barred" or not one.effective:
            continue
        for account, cents in ((one.source, -one.cents), (one.target, one.cents)):
            by_books[one.saga][account] += cents
            whole[account] += cents
    yield None if sum(whole.values()) == 0 else f"the books are off by {sum(whole.values())}"
    for row in evidence.rows:
        if row.status not in ENDED:
            continue
        books = {
            account: c for account, c in by_books[row.id].items() if c and "escrow" not in account
        }
        log = {account: c for account, c in _by_log(evidence, row.id).items() if c}
        if (
            row.name == "chaos-family"
        ):  # `hold` gives no receipt: what it holds is settled or undone
            books, log = {}, {}
        yield None if books == log else f"saga {row.id} ({row.status}): books {books}, log {log}"
    stuck = {
        str(row.input.get("ref", "")).partition("#")[0]
        for row in evidence.rows
        if row.status not in ENDED
    }
    for account, cents in whole.items():
        kind, _, ref = account.partition(":")
        if kind in ("transit", "escrow") and ref not in stuck:
            yield f"{account} holds {cents}" if cents else None


def _by_log(evidence: Evidence, saga: str) -> dict[str, int]:
    moved: dict[str, dict[str, object]] = {}
    for event in evidence.by_saga.get(saga, []):
        output = event.fact.get("output")
        if event.type in ("StepSucceeded", "ProbeAnswered") and isinstance(output, dict):
            moved[event.node] = output
        elif event.type == "StepCompensated":
            moved.pop(event.node, None)
    net: dict[str, int] = defaultdict(int)
    for output in moved.values():
        if "receipt" in output:
            cents = int(str(output["cents"]))
            net[str(output["source"])] -= cents
            net[str(output["target"])] += cents
    return net


@rule("I23")
def one_owner(evidence: Evidence) -> Iterator[str | None]:
    """Whenever another process called for a saga, a claim had gone before.

    But for what a process that was stopped, or out of touch, sends before it hears that it was
    replaced: no fence reaches that, and it may apply nothing.
    """
    pids: dict[str, list[int]] = defaultdict(list)
    for call in sorted(evidence.calls, key=lambda c: c.received):
        if _out_of_touch(evidence, call) and not _applied(evidence, call):
            continue
        seen = pids[call.saga]
        if not seen or seen[-1] != call.pid:
            seen.append(call.pid)
    for saga, seen in pids.items():
        row = evidence.row.get(saga)
        good = row is not None and len(seen) <= row.epoch
        told = "no row" if row is None else f"epoch {row.epoch}"
        yield None if good else f"saga {saga}: {len(seen)} owners called, {told}"


def _out_of_touch(evidence: Evidence, call: Call) -> bool:
    """Whether a fault had the process that called in hand then, or only just before."""
    spells = [
        (float(fault["begun"]), float(fault["ended"]))
        for fault in evidence.told("fault")
        if str(fault["kind"]).startswith(OF_ALL)
        or (str(fault["kind"]).startswith(OF_ONE) and fault.get("pid") == call.pid)
    ]
    # The ledger stops its caller, too.
    spells += [
        (one.received, one.received + PAUSE)
        for one in evidence.calls
        if one.struck == SIGSTOP and one.pid == call.pid
    ]
    return any(begun <= call.received <= ended + AWAKE for begun, ended in spells)


def _applied(evidence: Evidence, call: Call) -> bool:
    """Whether the call may have left something in the books."""
    found = evidence.applied.get(call.key)
    return found is not None and found.pid == call.pid and found.applied >= call.received
