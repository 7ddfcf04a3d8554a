"""Every primitive, killed before and after everything that it writes and does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import (
    Attempted,
    Budget,
    Fallback,
    Flow,
    Happened,
    NotHappened,
    Permanent,
    Retry,
    Router,
    Saga,
    Scope,
    Signal,
    Step,
    StepError,
    Timeout,
    Unknown,
    WorkflowContext,
    each,
    flow,
    loop,
    pure,
    sleep,
    step,
    when,
)
from orchestrator.testing import crash_points


@dataclass
class Books:
    """What was done, by key; done again it stays done once."""

    done: dict[str, str] = field(default_factory=dict)


def act(name: str, *, refuse: bool = False, undo: bool = True, cost: float = 0) -> Step[int, int]:
    """A step that adds one and can say afterwards whether it happened."""

    async def action(n: int, ctx: WorkflowContext) -> int:
        if refuse:
            raise Permanent("no")
        ctx.cost(cost)
        ctx.use(Books).done[ctx.idempotency_key] = name
        return n + 1

    made = step(name=name)(action)

    @made.probe
    async def ask(
        tried: Attempted[int, int], ctx: WorkflowContext
    ) -> Happened[int] | NotHappened | Unknown:
        there = tried.key in ctx.use(Books).done
        return Happened(tried.input + 1) if there else NotHappened()

    if undo:

        @made.compensation_on_doubt
        async def back(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
            ctx.use(Books).done.pop(tried.key, None)

    return made


verdict = Signal("verdict", int)


@flow
async def code(n: int, f: Flow) -> int:
    n = await f.run(act("one"), n)
    try:
        n = await f.run(act("two") >> act("three", refuse=True), n)
    except StepError:
        n = await f.receive(verdict)
    await f.sleep(60)
    return await f.run(act("four"), n)


@pure
def three(n: int) -> list[int]:
    return [n, n + 1, n + 2]


def total(values: Sequence[int]) -> int:
    return sum(values)


def inner(name: str, *, refuse: bool = False) -> Saga[int, int]:
    return Saga(name, 1, act("in") >> act("in-too", refuse=refuse))


def bodies() -> Mapping[str, Any]:
    last = act("last", refuse=True)
    return {
        "parallel": (act("a") | act("b")) >> pure(total) >> act("c"),
        "parallel-undone-side-by-side": (act("a") | act("b")).with_options(undo="parallel")
        >> pure(total)
        >> last,
        "parallel-cancelled": (act("a") | act("b", refuse=True)).with_options(on_failure="cancel"),
        "parallel-limited": (act("a") | act("b", refuse=True) | act("c")).with_options(limit=2),
        "retry": Retry(act("a") >> act("b"), 2),
        "timeout": Timeout(act("a") >> verdict.wait(), 5),
        "scope": Fallback(Scope(act("a") >> act("b", refuse=True)), [act("c")]) >> act("d"),
        "fallback": Fallback(act("a"), [act("b")]) >> last,
        "router": Router({"low": act("a"), "high": act("b")}, lambda n, ctx: "high") >> act("c"),
        "when": when(lambda n: n > 3, then=act("a")) >> act("b"),
        "each": three >> each(act("a") >> act("b"), concurrency=2),
        "each-undone": three >> each(act("a"), concurrency=2) >> pure(total) >> last,
        "loop": loop(act("a"), until=lambda n: n >= 3, max_iterations=5, pause=60),
        "loop-undone": loop(act("a"), until=lambda n: n >= 2, max_iterations=5) >> last,
        "sleep": act("a") >> sleep(timedelta(days=3)) >> act("b"),
        "signal": act("a") >> verdict.wait(within=timedelta(days=2)) >> act("b"),
        "signal-too-late": act("a") >> Signal("other", int).wait(within=60) >> act("b"),
        "child": act("a") >> inner("inner").child() >> act("b"),
        "child-undone": act("a") >> inner("inner").child() >> last,
        "child-failed": act("a") >> inner("inner", refuse=True).child(),
        "children": three >> each(inner("inner").child(), concurrency=2),
        "flow": act("a") >> code >> act("b"),
        "flow-undone": act("a") >> code >> last,
        "pivot": act("a") >> act("b").pivot() >> act("c", undo=False).retry(9),
        "guards": act("a").circuit("bank", failures=2, reset=5).rate_limit("all", 5).retry(3),
        "cache": three >> each(act_that_reads("look").cache(60), concurrency=1),
        "budget": Budget(act("a", cost=2) >> act("b", cost=2) >> act("c"), limit=3),
        "keep-and-using": (a := act("a")).keep()
        >> pure(total)
        >> act("b").using(lambda v: v.output(a) + v.value),
        "deadline": act("a") >> Signal("other", int).wait() >> act("b"),
    }


def act_that_reads(name: str) -> Step[int, int]:
    async def action(n: int, ctx: WorkflowContext) -> int:
        return n + 1

    return step(name=name)(action).without_undo("it only reads")


BODIES = bodies()


@pytest.mark.parametrize("name", BODIES)
def test_a_primitive_survives_every_crash(name: str) -> None:
    deadline = timedelta(minutes=1) if name == "deadline" else None
    saga = Saga(name, 1, BODIES[name], deadline=deadline)
    signals = [(verdict, 41)] if name in ("signal", "flow", "flow-undone") else []
    report = crash_points(saga, 0, resources={Books: Books()}, signals=signals, bound=400)
    assert report.points > 5
