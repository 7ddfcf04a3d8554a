"""Small sagas with no effects: one completes, one is taken back, one takes as long as it is told."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from orchestrator import Completed, Permanent, Saga, WorkflowContext, step


class Parcel(BaseModel):
    """What the sagas here begin with."""

    order_id: str
    weight: float = Field(gt=0)


@step
async def weigh(parcel: Parcel, ctx: WorkflowContext) -> float:
    return parcel.weight


@weigh.compensation
async def forget_weight(done: Completed[Parcel, float], ctx: WorkflowContext) -> None:
    """Nothing to take back: it was only looked at."""


@step
async def price(weight: float, ctx: WorkflowContext) -> float:
    return weight * 2


@step
async def refuse(weight: float, ctx: WorkflowContext) -> float:
    raise Permanent("no [bold]courier[/bold] takes \x1b[31mit")


@step
async def linger(weight: float, ctx: WorkflowContext) -> float:
    await asyncio.sleep(weight)
    return weight


SAGAS = (
    Saga("parcel-sent", version=1, body=weigh >> price),
    Saga("parcel-refused", version=1, body=weigh >> refuse),
    Saga("parcel-waits", version=1, body=weigh >> linger),
)
