"""Random sagas of every primitive, for the laws."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from orchestrator.domain.branching import Fallback, Router, each, loop, when
from orchestrator.domain.definition import Parallel, Primitive, Pure, Sequential
from orchestrator.domain.flow import Flow, flow
from orchestrator.domain.guards import Budget
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga, walk
from orchestrator.domain.steps import Step, step, transactional
from orchestrator.domain.waiting import Signal, sleep
from orchestrator.domain.wrappers import Retry, Scope, Timeout
from orchestrator.errors import DefinitionWarning, StepError

GO: Signal[Any] = Signal("go", Any)
LEAVES = 6
NO_UNDO = [
    "step", "ask", "without undo", "cached", "transactional", "pure", "child", "wait", "waits",
    "sleep",
]  # fmt: skip
LEAF = [
    *NO_UNDO, *8 * ["undo"], *2 * ["doubt", "undo doubt", "undo ask"], "undo doubt ask",
    "undo transactional",
]  # fmt: skip
PIVOT = ["step", "ask", "undo", "undo ask", "doubt", "transactional", "child"]
KEEPERS = ["retry", "retry", "scope", "keep", "using", "map", "circuit", "rate", "when"]
"""Wrappers whose meaning depends on no clock and on no order."""
TIMED = ["timeout", "timeout", "budget", "shared budget"]
SCOPES = ["retry", "retry", "scope", "scope", "timeout", "timeout"]


async def act(value: Any, ctx: Any) -> Any:
    return value


async def write(value: Any, ctx: Any, db: object) -> Any:
    return value


def key_of(value: Any) -> str:
    return str(value)


async def take_back(done: Any, ctx: Any) -> None:
    return None


@dataclass(frozen=True)
class Case:
    """A saga, and its steps by name: also those that only the code of a flow knows."""

    saga: Saga[Any, Any]
    steps: dict[str, Step[Any, Any]]
    side_by_side: bool

    def _repr_pretty_(self, printer: Any, cycle: object) -> None:
        printer.text(f"Case({self.saga!r})")


@dataclass
class Builder:
    """Draws a tree. `calm` leaves out what depends on time, or on who is first.

    With `wide` lists are done side by side all the same: all is well where nothing fails.
    """

    draw: st.DrawFn
    calm: bool
    wide: bool = False
    steps: dict[str, Step[Any, Any]] = field(default_factory=dict)
    side_by_side: bool = False
    used: int = 0

    def tree(self, leaves: int, kinds: list[str]) -> Primitive[Any, Any]:
        inner = self._leaf(kinds) if leaves == 1 else self._composite(leaves, kinds)
        if self.draw(st.integers(0, 9)) < (6 if leaves == 1 else 4):
            return inner
        wrappers = KEEPERS if self.calm else [*KEEPERS, *TIMED]
        scopes = [] if leaves == 1 else SCOPES[:4] if self.calm else SCOPES
        return self._wrapped(inner, self.draw(st.sampled_from([*scopes, *wrappers])))

    def _parts(self, leaves: int, kinds: list[str], most: int = 3) -> list[Primitive[Any, Any]]:
        first = self.draw(st.integers(1, leaves - 1))
        sizes = [first, leaves - first]
        if most > 2 and sizes[1] > 1 and self.draw(st.booleans()):
            sizes[1:] = [1, sizes[1] - 1]
        return [self.tree(size, kinds) for size in sizes]

    def _composite(self, leaves: int, kinds: list[str]) -> Primitive[Any, Any]:
        shapes = ["seq", "seq", "seq", "par", "par", "fallback", "router", "each", "loop", "pairs"]
        match self.draw(st.sampled_from([*shapes, "flow"])):
            case "seq":
                return Sequential(tuple(self._parts(leaves, kinds)))
            case "par":
                return self._parallel(self._parts(leaves, kinds))
            case "fallback":
                first, *others = map(_loose, self._parts(leaves, kinds))
                return Fallback(first, others)
            case "router":
                routes = {f"r{n}": _loose(p) for n, p in enumerate(self._parts(leaves, kinds))}
                return Router(routes, lambda v, ctx: "r0", self.draw(st.sampled_from([None, "r0"])))
            case "each":
                count = self.draw(st.integers(0, 3))
                listing: Primitive[Any, Any] = Pure(f"list{count}", list, Any, Any)
                # Which items are begun after a failure depends on who is first.
                alone = self.calm and not self.wide
                at_once = 1 if alone else self.draw(st.integers(1, 3))
                return Sequential(
                    (listing, each(self.tree(leaves - 1, kinds), concurrency=at_once))
                )
            case "loop":
                body = _loose(self.tree(leaves - 1, kinds))
                most = self.draw(st.integers(1, 3))
                pause = self.draw(st.sampled_from([0, 5]))
                return loop(body, until=bool, max_iterations=most, pause=pause)
            case "pairs":
                return self._pairs(kinds)
            case _:
                return self._code(self._parts(leaves, kinds))

    def _pairs(self, kinds: list[str]) -> Primitive[Any, Any]:
        undos = [take_back, None] if kinds is LEAF else [None]
        pairs: Any = tuple(
            (self._step(self._name(), "step"), self.draw(st.sampled_from(undos))) for _ in range(2)
        )
        made = Compensation(pairs)
        self.steps |= {part.name: part for part in walk(made) if isinstance(part, Step)}
        return made

    def _parallel(self, parts: list[Primitive[Any, Any]]) -> Primitive[Any, Any]:
        undo: Any = self.draw(st.sampled_from(["sequential", "sequential", "parallel"]))
        self.side_by_side = self.side_by_side or undo == "parallel"
        limits = [None, None, 1] if self.calm and not self.wide else [None, None, 1, 2]
        failing: Any = ["settle"] if self.calm else ["settle", "settle", "cancel"]
        return Parallel(
            tuple(parts),
            self.draw(st.sampled_from(limits)),
            self.draw(st.sampled_from(failing)),
            undo,
        )

    def _code(self, parts: list[Primitive[Any, Any]]) -> Primitive[Any, Any]:
        """Code that runs all parts but the last in order, and perhaps the last one on a failure."""
        *first, last = parts
        waits = self.draw(st.sampled_from(["", "", "sleep", "receive"]))
        within = None if self.calm else self.draw(st.sampled_from([None, 5]))
        catches = self.draw(st.sampled_from([True, True, False]))

        @flow
        async def code(value: Any, f: Flow) -> Any:
            try:
                for part in first:
                    value = await f.run(part, value)
                if waits == "sleep":
                    await f.sleep(5)
                elif waits == "receive":
                    value = await f.receive(GO, within)
            except StepError:
                if not catches:
                    raise
                return await f.run(last, value)
            return value

        return code

    def _wrapped(self, inner: Primitive[Any, Any], kind: str) -> Primitive[Any, Any]:
        match kind:
            case "retry":
                on = self.draw(st.sampled_from([(), (), (), (RuntimeError,), (TimeoutError,)]))
                return Retry(inner, self.draw(st.sampled_from([1, 0, 1, 2])), on=on)
            case "timeout":
                return Timeout(inner, self.draw(st.integers(1, 20)))
            case "scope":
                return Scope(inner)
            case "keep":
                return inner.keep()
            case "using":
                return inner.using(lambda v: v.value)
            case "map":
                return inner >> Pure(self._name(), str, Any, Any)
            case "circuit" if _has_steps(inner):
                return inner.circuit("bank")
            case "rate" if _has_steps(inner):
                return inner.rate_limit("bank", 5)
            case "budget" if _has_steps(inner):
                return Budget(inner, self.draw(st.integers(1, 3)))
            case "shared budget" if _has_steps(inner):
                return Budget(inner, 9, "purse")
            case "when":
                return when(lambda _: True, then=_loose(inner))
            case _:
                return inner

    def _name(self) -> str:
        self.used += 1
        return f"n{self.used - 1}"

    def _leaf(self, kinds: list[str]) -> Primitive[Any, Any]:
        name = self._name()
        kind = self.draw(st.sampled_from(kinds))
        match kind:
            case "pure":
                return Pure(name, str, Any, Any)
            case "child":
                return _child(name).child(self.draw(st.sampled_from([None, None, key_of])))
            case "wait":
                within = self.draw(st.sampled_from([None, 5, 20]))
                return GO.wait(None if self.calm else within)
            case "sleep":
                return sleep(self.draw(st.sampled_from([0, 5])))
        made = self._step(name, kind)
        return made.cache(60) if kind == "cached" else made

    def _step(self, name: str, kind: str) -> Step[Any, Any]:
        made = self._bare(name, kind)
        if "undo" in kind and "without" not in kind:
            made.compensation(retries=2)(take_back)
        if "doubt" in kind:
            made.compensation_on_doubt(retries=2)(take_back)
        if "ask" in kind:
            made.probe(retries=1)(act)
        if "without" in kind:
            made = made.without_undo("it reads")
        self.steps[name] = made
        return made

    def _bare(self, name: str, kind: str) -> Step[Any, Any]:
        """Perhaps with retries and a time-out of its own, or to be run once."""
        own = self.draw(st.sampled_from(["", "", "", "", "retries", "timeout", "both", "once"]))
        options: dict[str, Any] = {"retries": 1} if own in ("retries", "both") else {}
        if own in ("timeout", "both") and not self.calm:
            options["timeout"] = 10
        if "transactional" in kind:
            decorate: Any = transactional(name=name, **options)
            return decorate(write)  # type: ignore[no-any-return]  # the decorator is untyped here
        decorate = step(name=name, once=own == "once" and not self.calm, **options)
        return decorate(act)  # type: ignore[no-any-return]  # as above

    def pivot(self) -> Primitive[Any, Any]:
        name, kind = self._name(), self.draw(st.sampled_from(PIVOT))
        if kind == "child":
            return _child(name, pivot=self.draw(st.booleans())).child().pivot()
        inner: Primitive[Any, Any] = self._step(name, kind)
        if self.draw(st.booleans()):
            inner = Retry(inner, 1)
        if not self.calm and self.draw(st.integers(0, 3)) == 0:
            inner = Timeout(inner, 10)
        return inner.pivot()


def _loose(part: Primitive[Any, Any]) -> Primitive[Any, Any]:
    """*part*, which gives anything: what fits what is not the question here."""
    return part if part.output_type is Any else Sequential((part, Pure("any", str, Any, Any)))


def _has_steps(node: Primitive[Any, Any]) -> bool:
    return any(isinstance(part, Step) for part in walk(node))


def _child(name: str, *, pivot: bool = False) -> Saga[Any, Any]:
    decorate: Any = step(name=f"in-{name}")
    inside = decorate(act)
    return Saga(name, 1, inside.pivot() if pivot else inside)


@st.composite
def cases(draw: st.DrawFn, *, calm: bool = False, wide: bool = False, pivots: bool = True) -> Case:
    """A saga of one to six leaves, perhaps with a pivot on its spine."""
    builder = Builder(draw, calm, wide)
    pivot = pivots and draw(st.integers(0, 3)) == 0
    body = builder.tree(draw(st.integers(1, 2 if pivot else LEAVES)), LEAF)
    if pivot:
        body = body >> builder.pivot()
        if draw(st.integers(0, 3)):
            body = body >> builder.tree(draw(st.integers(1, 4)), NO_UNDO)
    deadline = None if calm else draw(st.sampled_from([*6 * [None], 5, 15, 40]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DefinitionWarning)
        saga = Saga("law", 1, body, None if deadline is None else timedelta(seconds=deadline))
    return Case(saga, builder.steps, builder.side_by_side)


def names() -> Iterator[str]:
    """The names that a tree can have."""
    return (f"n{number}" for number in range(LEAVES + 6))
