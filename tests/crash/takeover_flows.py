"""What the workers of the takeover times carry: many short steps, or one in a transaction."""

from __future__ import annotations

import asyncio
import json
import os
import time
from functools import reduce
from operator import rshift
from pathlib import Path

import asyncpg

from orchestrator import Saga, WorkflowContext, step, transactional

DIARY = "TAKEOVER_DIARY"
NAP = 0.2
STEPS = 300
MARKED = "INSERT INTO naps (saga) VALUES ($1)"


def _note(saga_id: str) -> None:
    with Path(os.environ[DIARY]).open("a") as diary:
        diary.write(json.dumps([os.getpid(), time.monotonic(), saga_id]) + "\n")


@step
async def nap(n: int, ctx: WorkflowContext) -> int:
    _note(ctx.saga_id)
    await asyncio.sleep(NAP)
    return n + 1


@transactional
async def mark(n: int, ctx: WorkflowContext, db: asyncpg.Connection) -> int:
    await db.execute(MARKED, ctx.saga_id)
    return n + 1


naps = Saga("naps", version=1, body=reduce(rshift, [nap.named(f"nap{n}") for n in range(STEPS)]))
marked = Saga("marked", version=1, body=mark)

SAGAS = (naps, marked)
