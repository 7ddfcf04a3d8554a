"""Sagas over Postgres, under names of their own, so that a worker can be given exactly one instance.

Their steps write what they do into a diary, which outlives the process, or into the table `ledger`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from orchestrator import (
    Attempted,
    Completed,
    Fallback,
    Flow,
    Permanent,
    Primitive,
    Router,
    Saga,
    Signal,
    Step,
    WorkflowContext,
    each,
    flow,
    loop,
    pure,
    sleep,
    step,
    transactional,
)

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]
else:
    Driver = asyncpg.Connection  # generic in the stubs only

LEDGER = """
CREATE TABLE ledger (
    saga text NOT NULL, what text NOT NULL,
    alone text UNIQUE DEFERRABLE INITIALLY DEFERRED
)
"""
"""The user's own table. Nothing but the transaction keeps an entry from being written twice."""

INSERT = "INSERT INTO ledger (saga, what) VALUES ($1, $2)"
_INSERT = text("INSERT INTO ledger (saga, what) VALUES (:saga, :what)")


class Diary:
    """What steps did, a line for each call; it survives whoever writes it."""

    def __init__(self, path: Path, pass_by: Callable[[str, str], None] | None = None) -> None:
        self._path = path
        self._pass_by = pass_by or (lambda kind, what: None)

    def write(self, what: str, ctx: WorkflowContext) -> None:
        """Say that *what* is being done; whoever is to die here dies before it, or after it."""
        self._pass_by("effect-before", what)
        line = {"saga": ctx.saga_id, "what": what, "key": ctx.idempotency_key, "pid": os.getpid()}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._pass_by("effect-after", what)

    def lines(self) -> list[dict[str, Any]]:
        """All that was written, by any process, in order."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def of(self, saga_id: str) -> list[str]:
        """What was done for one instance, in order."""
        return [line["what"] for line in self.lines() if line["saga"] == saga_id]


def act(name: str) -> Step[int, int]:
    """A step that adds one; its undo is written as `-name`."""

    async def action(n: int, ctx: WorkflowContext) -> int:
        ctx.use(Diary).write(name, ctx)
        return n + 1

    made = step(name=name)(action)

    @made.compensation_on_doubt
    async def back(tried: Attempted[int, int], ctx: WorkflowContext) -> None:
        ctx.use(Diary).write(f"-{name}", ctx)

    return made


def refusing(name: str) -> Step[int, int]:
    """A step that refuses, whatever it gets."""

    async def action(n: int, ctx: WorkflowContext) -> int:
        ctx.use(Diary).write(name, ctx)
        raise Permanent("no")

    return step(name=name)(action)


# ---------------------------------------------------------------------------- in a transaction


@transactional
async def by_session(n: int, ctx: WorkflowContext, db: AsyncSession) -> int:
    ctx.use(Diary).write("by_session", ctx)
    await db.execute(_INSERT, {"saga": ctx.saga_id, "what": "by_session"})
    return n + 1


@by_session.compensation
async def not_by_session(done: Completed[int, int], ctx: WorkflowContext, db: AsyncSession) -> None:
    await db.execute(_INSERT, {"saga": ctx.saga_id, "what": "-by_session"})


@transactional
async def by_connection(n: int, ctx: WorkflowContext, db: AsyncConnection) -> int:
    await db.execute(_INSERT, {"saga": ctx.saga_id, "what": "by_connection"})
    ctx.use(Diary).write("by_connection", ctx)
    return n + 1


@by_connection.compensation
async def not_by_connection(
    done: Completed[int, int], ctx: WorkflowContext, db: AsyncConnection
) -> None:
    await db.execute(_INSERT, {"saga": ctx.saga_id, "what": "-by_connection"})


@transactional
async def by_driver(n: int, ctx: WorkflowContext, db: Driver) -> int:
    await db.execute(INSERT, ctx.saga_id, "by_driver")
    ctx.use(Diary).write("by_driver", ctx)
    return n + 1


@by_driver.compensation
async def not_by_driver(done: Completed[int, int], ctx: WorkflowContext, db: Driver) -> None:
    await db.execute(INSERT, ctx.saga_id, "-by_driver")


BY_HAND = ("by_session", "by_connection", "by_driver")


# ---------------------------------------------------------------------------- the scenes

verdict = Signal("verdict", int)
first, second, third, last = act("first"), act("second"), act("third"), act("last")
_one, _two, _three = act("one"), act("two"), act("three")
_c1, _c2 = act("c1"), act("c2")
_no = refusing("no")


def _to_three(n: int) -> list[int]:
    return [n, n + 1, n + 2]


def _total(values: list[int]) -> int:
    return sum(values)


@flow
async def talk(n: int, f: Flow) -> int:
    """Asks for a step, a signal, a timer and two more steps."""
    n = await f.run(_one, n)
    n += await f.receive(verdict)
    await f.sleep(0.01)
    n = await f.run(_two, n)
    return await f.run(_three, n)


def _child(number: int) -> Primitive[int, int]:
    return Saga(f"child-{number}", 1, _c1 >> _c2).child()


def _waiting_child(number: int) -> Primitive[int, int]:
    body = _c1 >> verdict.wait() >> _c2
    return Saga(f"waiting-child-{number}", 1, body).child()


def _tour(number: int) -> Primitive[int, Any]:
    """One of each."""
    return (
        first
        >> (second | third)
        >> pure(_sum_of_two)
        >> Router({"odd": act("odd"), "even": act("even")}, _parity)
        >> Fallback(act("tried") >> refusing("refused"), [act("instead")])
        >> pure(_to_three)
        >> each(act("item"), concurrency=2)
        >> pure(_total)
        >> loop(act("round"), until=lambda n: n % 3 == 0, max_iterations=5, pause=0.01)
        >> sleep(0.01)
        >> talk
        >> _child(number)
        >> by_session
    )


def _sum_of_two(pair: tuple[int, int]) -> int:
    return pair[0] + pair[1]


def _parity(n: int, ctx: WorkflowContext) -> str:
    return "odd" if n % 2 else "even"


SCENES: Mapping[str, Callable[[int], Primitive[int, Any]]] = {
    "ledger": lambda _: by_session >> by_connection >> by_driver,
    "ledger-undone": lambda _: by_session >> by_connection >> by_driver >> _no,
    "parked": lambda _: first >> verdict.wait() >> second,
    "talk": lambda _: first >> talk >> last,
    "talk-undone": lambda _: first >> talk >> _no,
    "parent": lambda n: first >> pure(_to_three) >> each(_waiting_child(n)) >> pure(_total) >> last,
    "parent-of-one": lambda n: first >> _waiting_child(n) >> last,
    "parent-undone": lambda n: first >> _child(n) >> _no,
    "long-sleep": lambda _: first >> sleep(2) >> second,
    "tour": _tour,
    "tour-undone": lambda n: _tour(n) >> _no,
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One saga of one number."""

    name: str
    number: int

    @property
    def saga(self) -> Saga[int, Any]:
        """Made anew each time, as another process would make it."""
        return Saga(f"{self.name}-{self.number}", 1, SCENES[self.name](self.number))
