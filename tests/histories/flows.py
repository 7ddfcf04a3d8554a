"""One small saga for each primitive, whose recorded runs are kept for ever."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from orchestrator import (
    Attempted,
    Budget,
    Compensation,
    Completed,
    DefinitionWarning,
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


@dataclass
class World:
    """How often each step was called, and which calls fail."""

    calls: dict[str, int] = field(default_factory=dict)

    def do(self, what: str, fails: tuple[Exception, ...]) -> None:
        number = self.calls[what] = self.calls.get(what, 0) + 1
        if number <= len(fails):
            raise fails[number - 1]


def act(name: str, *fails: Exception, undo: bool = True, cost: float = 0.0) -> Step[int, int]:
    """A step that adds one; its first calls raise *fails*."""

    async def action(n: int, ctx: WorkflowContext) -> int:
        if cost:
            ctx.cost(cost)
        ctx.use(World).do(name, fails)
        return n + 1

    made = step(name=name)(action)
    if undo:

        @made.compensation
        async def back(done: Completed[int, int], ctx: WorkflowContext) -> None:
            ctx.use(World).do(f"-{name}", ())

    return made


def unsure(name: str, answer: Happened[int] | NotHappened | Unknown) -> Step[int, int]:
    """A step whose answer is lost; its probe gives *answer*."""
    made = act(name, TimeoutError("no answer"))

    @made.probe
    async def ask(
        tried: Attempted[int, int], ctx: WorkflowContext
    ) -> Happened[int] | NotHappened | Unknown:
        return answer

    return made


def doubtful(name: str) -> Step[int, int]:
    """A step whose answer is lost, and that is undone on doubt."""
    made = act(name, TimeoutError("no answer"), undo=False)

    @made.compensation_on_doubt
    async def back(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
        ctx.use(World).do(f"?{name}", ())

    return made


NO = Permanent("no")
NOT_YET = RuntimeError("not yet")
verdict = Signal("verdict", int)


def double(n: int) -> int:
    return 2 * n


def total(values: tuple[int, int]) -> int:
    return sum(values)


@flow
async def code(n: int, f: Flow) -> int:
    """Two steps, one that fails, a signal and a sleep."""
    n = await f.run(act("one"), n)
    try:
        n = await f.run(act("two", NO), n)
    except StepError:
        n = await f.receive(verdict)
    await f.sleep(0.01)
    return await f.run(act("three"), n)


def _child(name: str, *fails: Exception) -> Saga[int, int]:
    return Saga(name, 1, act("in-child") >> act("in-child-too", *fails))


def _bodies() -> Mapping[str, Any]:
    quick: dict[str, Any] = {"initial": 0, "jitter": False}
    return {
        "step": act("a") >> act("b"),
        "step-undone": act("a") >> act("b") >> act("c", NO),
        "on-doubt": act("a") >> doubtful("b"),
        "probe-happened": unsure("a", Happened(7)) >> act("b"),
        "probe-not-happened": act("a") >> unsure("b", NotHappened()),
        "probe-unknown": act("a") >> unsure("b", Unknown()),
        "pure": act("a") >> pure(double) >> act("b"),
        "parallel": (act("a") | act("b")) >> pure(total),
        "parallel-undone": (act("a") | act("b", NO)) >> pure(total),
        "parallel-limited": (act("a", NO) | act("b") | act("c")).with_options(limit=1),
        "retry": act("a", NOT_YET, NOT_YET).retry(3, **quick),
        "retry-scope": Retry(act("a") >> act("b", NOT_YET), 2, 0, jitter=False),
        "timeout": Timeout(act("a") >> verdict.wait(), 0.05),
        "scope": Fallback(Scope(act("a") >> act("b", NO), "try"), [act("c")]),
        "pairs": Compensation(((act("a", undo=False), _gone), (act("b", NO), None))),
        "fallback": Fallback(act("a", NO), [act("b", NO), act("c")]),
        "router": Router({"low": act("a"), "high": act("b")}, _height, default="low"),
        "when": when(lambda n: n > 100, then=act("a")) >> act("b"),
        "each": _three >> each(act("a"), concurrency=2),
        "each-undone": _three >> each(act("a", NOT_YET), concurrency=1),
        "loop": loop(act("a"), until=lambda n: n >= 3, max_iterations=5, pause=0.01),
        "loop-exhausted": loop(act("a"), until=lambda n: False, max_iterations=2),
        "sleep": act("a") >> sleep(0.01) >> act("b"),
        "signal": act("a") >> verdict.wait() >> act("b"),
        "signal-late": act("a") >> verdict.wait(within=0.05),
        "child": act("a") >> _child("inner").child() >> act("b"),
        "child-undone": act("a") >> _child("inner").child() >> act("b", NO),
        "child-failed": act("a") >> _child("inner", NO).child(),
        "children": _three >> each(_child("inner").child(key=lambda n: f"key-{n}")),
        "flow": act("a") >> code >> act("b"),
        "pivot": act("a") >> act("b").pivot() >> act("c", NOT_YET, undo=False).retry(2, **quick),
        "cache": _three >> each(act("a", undo=False).cache(60, key=lambda n: "k"), concurrency=1),
        "rate": loop(act("a").rate_limit("r", 1, 0.05), until=lambda n: n > 1, max_iterations=3),
        "circuit": act("a", NOT_YET).circuit("c", failures=1, reset=0.05).retry(2, **quick),
        "budget": Budget(act("a", cost=2) >> act("b", cost=2) >> act("c"), limit=3),
        "keep": act("a").keep() >> pure(total),
        "using": (a := act("a")) >> act("b") >> act("c").using(lambda v: v.output(a)),
    }


async def _gone(done: Completed[int, int], ctx: WorkflowContext) -> None:
    ctx.use(World).do("-gone", ())


def _height(n: int, ctx: WorkflowContext) -> str:
    return "high" if n > 100 else "odd"


@pure
def _three(n: int) -> list[int]:
    return [n, n + 1, n + 2]


Build = Callable[[], Saga[Any, Any]]


def sagas() -> dict[str, Saga[Any, Any]]:
    """The sagas by name, each with version 1 and on the input 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DefinitionWarning)
        built = {name: Saga(name, 1, body) for name, body in _bodies().items()}
        built["deadline"] = Saga(
            "deadline", 1, act("a") >> verdict.wait(), deadline=timedelta(milliseconds=50)
        )
    return built
