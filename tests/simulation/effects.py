"""Steps whose effects are in the ledger, in all the ways in which they can be taken back."""

from __future__ import annotations

from typing import Any

from orchestrator.domain.definition import Primitive, Pure
from orchestrator.domain.steps import Happened, NotHappened, Step, Unknown, step, transactional
from orchestrator.domain.waiting import Signal
from tests.simulation.ledger import Account

GO: Signal[Any] = Signal("go", Any)

UNDOABLE = ("undo", "doubt", "undo doubt", "undo ask", "undo doubt ask", "undo transactional")
PLAIN = ("plain", "ask", "cached", "once", "transactional")


UNDONE: set[str] = set()
"""The names of steps that something undoes."""
SETTLING: set[str] = set()
"""The names of steps that settle a doubt by themselves."""


def effect(name: str, kind: str = "undo", **options: Any) -> Step[Any, Any]:
    """A step with an effect of that name; *kind* says how it is taken back."""
    if "undo" in kind or "doubt" in kind:
        UNDONE.add(name)
    if "doubt" in kind or "ask" in kind:
        SETTLING.add(name)
    if "transactional" in kind:
        return _in_transaction(name, kind, options)

    async def action(value: Any, ctx: Any) -> Any:
        return await ctx.use(Account).do(ctx, name, honest=name not in SETTLING)

    decorate: Any = step(name=name, once="once" in kind, **options)
    made: Step[Any, Any] = decorate(action)
    if "undo" in kind:
        made.compensation()(undo_of(name))
    if "doubt" in kind:
        made.compensation_on_doubt()(undo_of(name))
    if "ask" in kind:
        made.probe(retries=1)(_probe(name))
    return made.cache(60) if kind == "cached" else made  # type: ignore[return-value]  # a leaf


def undo_of(name: str) -> Any:
    async def take_back(done: Any, ctx: Any) -> None:
        await ctx.use(Account).undo(done.key, ctx, name)

    return take_back


def _probe(name: str) -> Any:
    async def ask(tried: Any, ctx: Any) -> Any:
        found = await ctx.use(Account).ask(tried.key, ctx, name)
        if found == "":
            return Unknown()
        return NotHappened() if found is None else Happened(found)

    return ask


def _in_transaction(name: str, kind: str, options: dict[str, Any]) -> Step[Any, Any]:
    async def write(value: Any, ctx: Any, db: object) -> Any:
        return await ctx.use(Account).write(db, ctx, name)

    async def erase(done: Any, ctx: Any, db: object) -> None:
        await ctx.use(Account).erase(db, done.key, ctx, name)

    decorate: Any = transactional(name=name, **options)
    made: Step[Any, Any] = decorate(write)
    if "undo" in kind:
        made.compensation()(erase)
    return made


def refusing() -> Primitive[Any, Any]:
    def refuse(value: Any) -> Any:
        raise ValueError("no")

    return Pure("refuse", refuse, Any, Any)
