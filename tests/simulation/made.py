"""Sagas made by chance, each from a number."""

from __future__ import annotations

import random
from typing import Any

from orchestrator.domain.branching import Fallback, Router, each, loop, when
from orchestrator.domain.definition import Parallel, Primitive, Pure, Sequential
from orchestrator.domain.flow import Flow, flow
from orchestrator.domain.guards import Budget
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga, walk
from orchestrator.domain.steps import Step
from orchestrator.domain.waiting import sleep
from orchestrator.domain.wrappers import Retry, Scope, Timeout
from orchestrator.errors import StepError
from tests.simulation.effects import GO, PLAIN, UNDOABLE, UNDONE, effect, refusing, undo_of


class Maker:
    """Draws a tree."""

    def __init__(self, chance: random.Random, number: int) -> None:
        self.chance = chance
        self.number = number
        self.used = 0
        self.children: list[Saga[Any, Any]] = []
        self.beside = False

    def tree(self, leaves: int, kinds: tuple[str, ...]) -> Primitive[Any, Any]:
        inner = self.leaf(kinds) if leaves == 1 else self.composite(leaves, kinds)
        return inner if self.chance.random() < 0.6 else self.wrapped(inner)

    def parts(self, leaves: int, kinds: tuple[str, ...]) -> list[Primitive[Any, Any]]:
        first = self.chance.randint(1, leaves - 1)
        return [self.tree(first, kinds), self.tree(leaves - first, kinds)]

    def composite(self, leaves: int, kinds: tuple[str, ...]) -> Primitive[Any, Any]:
        draw = self.chance
        shapes = ("seq", "seq", "par", "fallback", "router", "each", "loop", "pairs", "flow")
        match draw.choice(shapes):
            case "par":
                self.beside = True
                return Parallel(
                    tuple(self.parts(leaves, kinds)),
                    draw.choice((None, 1)),
                    draw.choice(("settle", "cancel")),
                    draw.choice(("sequential", "parallel")),
                )
            case "fallback":
                first, other = map(_loose, self.parts(leaves, kinds))
                return Fallback(first, [other])
            case "router":
                routes = {f"r{n}": _loose(p) for n, p in enumerate(self.parts(leaves, kinds))}
                return Router(routes, lambda v, ctx: "r0")
            case "each":
                self.beside = True
                count = draw.randint(0, 3)
                listing: Primitive[Any, Any] = Pure(
                    self.name(), lambda value: list(range(count)), Any, Any
                )
                body = self.tree(leaves - 1, kinds)
                return Sequential((listing, each(body, concurrency=draw.randint(1, 2))))
            case "loop":
                body = _loose(self.tree(leaves - 1, kinds))
                return loop(
                    body, until=lambda v: False, max_iterations=2, pause=draw.choice((0, 1))
                )
            case "pairs" if kinds is not PLAIN:
                return self.pairs()
            case "flow":
                return self.code(self.parts(leaves, kinds))
            case _:
                return Sequential(tuple(self.parts(leaves, kinds)))

    def pairs(self) -> Primitive[Any, Any]:
        names = self.name(), self.name()
        UNDONE.update(names)
        return Compensation(tuple((effect(n, "plain"), undo_of(n)) for n in names))  # type: ignore[arg-type]  # pairs of any type

    def code(self, parts: list[Primitive[Any, Any]]) -> Primitive[Any, Any]:
        first, last = parts
        waits = self.chance.choice(("", "sleep", "receive"))
        catches = self.chance.random() < 0.5

        @flow
        async def code(value: Any, f: Flow) -> Any:
            try:
                value = await f.run(first, value)
                if waits == "sleep":
                    await f.sleep(1)
                elif waits == "receive":
                    value = await f.receive(GO, 2)
            except StepError:
                if not catches:
                    raise
            return await f.run(last, value)

        return code

    def wrapped(self, inner: Primitive[Any, Any]) -> Primitive[Any, Any]:
        match self.chance.choice(("retry", "retry", "timeout", "scope", "keep", "circuit", "rate",
                                  "budget", "when", "refuse")):  # fmt: skip
            case "retry":
                return Retry(inner, self.chance.randint(0, 2), initial=0.2)
            case "timeout":
                return Timeout(inner, self.chance.choice((1, 3, 10)))
            case "scope":
                return Scope(inner)
            case "keep":
                return inner.keep()
            case "circuit" if _has_steps(inner):
                return inner.circuit("bank", failures=3, reset=2)
            case "rate" if _has_steps(inner):
                return inner.rate_limit("bank", 5)
            case "budget" if _has_steps(inner):
                return Budget(inner, 3)
            case "when":
                return when(lambda _: True, then=_loose(inner))
            case "refuse":
                return inner >> refusing() if self.chance.random() < 0.5 else inner
            case _:
                return inner

    def leaf(self, kinds: tuple[str, ...]) -> Primitive[Any, Any]:
        drawn = self.chance.random()
        if drawn < 0.07:
            name = self.name()
            inside = Saga(name, 1, effect(f"in-{name}", self.chance.choice(kinds)))
            self.children.append(inside)
            return inside.child()
        if drawn < 0.12:
            return GO.wait(self.chance.choice((None, 2)))
        if drawn < 0.17:
            return sleep(self.chance.choice((0, 1)))
        own = self.chance.choice(({}, {}, {"retries": 1}, {"timeout": 1}))
        kind = self.chance.choice(kinds)
        return effect(self.name(), kind, **({} if "once" in kind else own))

    def pivot(self) -> Primitive[Any, Any]:
        return effect(self.name(), self.chance.choice(("plain", "undo", "doubt", "ask"))).pivot()

    def name(self) -> str:
        self.used += 1
        return f"m{self.number}n{self.used}"


def _loose(part: Primitive[Any, Any]) -> Primitive[Any, Any]:
    return part if part.output_type is Any else Sequential((part, Pure("any", str, Any, Any)))


def _has_steps(node: Primitive[Any, Any]) -> bool:
    return any(isinstance(part, Step) for part in walk(node))


def made(number: int) -> tuple[Primitive[Any, Any], list[Saga[Any, Any]], bool]:
    maker = Maker(random.Random(number), number)
    body = maker.tree(maker.chance.randint(2, 5), UNDOABLE * 2 + PLAIN)
    if number % 5 == 0:
        body = body >> maker.pivot() >> maker.tree(1, PLAIN)
    return body, maker.children, maker.beside
