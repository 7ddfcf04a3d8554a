"""A saga that uses all that a database gives: its rows, a timer, a signal, a child, and a way back."""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from orchestrator import Completed, Permanent, Saga, Signal, WorkflowContext, step, transactional
from orchestrator import sleep as wait

NOTE = "INSERT INTO notes (saga, what) VALUES ($1, $2)"
go = Signal("go", int)


@transactional
async def book(n: int, ctx: WorkflowContext, db: asyncpg.Connection) -> int:
    await db.execute(NOTE, ctx.saga_id, "booked")
    return n


@book.compensation
async def unbook(done: Completed[int, int], ctx: WorkflowContext, db: asyncpg.Connection) -> None:
    await db.execute(NOTE, ctx.saga_id, "unbooked")


@step
async def finish(n: int, ctx: WorkflowContext) -> int:
    if n < 0:
        raise Permanent("not below zero")
    return n + 1


little = Saga("little", version=1, body=book.named("book_little"))
tour = Saga(
    "tour",
    version=1,
    body=book >> wait(timedelta(seconds=2)) >> little.child() >> go.wait() >> finish,
)
SAGAS = (tour, little)
