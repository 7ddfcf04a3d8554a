"""A step that eats memory without end, beside one that is modest."""

from __future__ import annotations

import asyncio

from orchestrator import Saga, WorkflowContext, step

SLICE = 8 << 20
SLICES = 4_000


@step
async def eat(n: int, ctx: WorkflowContext) -> int:
    eaten = []
    for _ in range(SLICES if n else 0):
        eaten.append(bytearray(b"x" * SLICE))
        await asyncio.sleep(0)
    return len(eaten)


@step
async def nibble(n: int, ctx: WorkflowContext) -> int:
    await asyncio.sleep(0.05)
    return n


hungry = Saga("hungry", version=1, body=eat)
modest = Saga("modest", version=1, body=nibble)
SAGAS = (hungry, modest)
