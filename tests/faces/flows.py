"""Small sagas for the command line: one that completes or is undone, one that waits, one that sticks."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from orchestrator import (
    Completed,
    Permanent,
    Retryable,
    Saga,
    Signal,
    WorkflowContext,
    each,
    pure,
    step,
)

NASTY = "too much \x1b[31m\u202e[bold]x[/bold]"
ALARMING = 1000


class Order(BaseModel, frozen=True, extra="forbid"):
    """What a customer wants."""

    order_id: str = Field(min_length=1)
    amount: int = Field(gt=0)


@step
async def hold(order: Order, ctx: WorkflowContext) -> int:
    return order.amount


@hold.compensation
async def release(done: Completed[Order, int], ctx: WorkflowContext) -> None: ...


@step
async def pay(amount: int, ctx: WorkflowContext) -> str:
    if amount >= ALARMING:
        raise Permanent(NASTY)
    return f"paid {amount}"


@step
async def send(amount: int, ctx: WorkflowContext) -> str:
    return "sent"


@send.compensation
async def fetch_back(done: Completed[int, str], ctx: WorkflowContext) -> None: ...


def both(parts: tuple[str, str]) -> str:
    return " and ".join(parts)


def twins(amount: int) -> list[int]:
    return [amount, amount]


@step(retries=3)
async def call_later(amount: int, ctx: WorkflowContext) -> int:
    raise Retryable("busy", after=3600)


@step
async def lose(amount: int, ctx: WorkflowContext) -> int:
    raise TimeoutError("no answer")


@lose.compensation
async def find(done: Completed[int, int], ctx: WorkflowContext) -> None: ...


@step
async def sleep_long(amount: int, ctx: WorkflowContext) -> int:
    await asyncio.sleep(600)
    return amount


class Verdict(BaseModel, frozen=True, strict=True):
    """What a person says."""

    approved: bool


verdict = Signal("verdict", Verdict)


@step
async def charge(amount: int, ctx: WorkflowContext) -> int:
    return amount


@charge.compensation(retries=0)
async def refund(done: Completed[int, int], ctx: WorkflowContext) -> None:
    if done.output:
        raise Permanent("the till is shut")


@step
async def refuse(amount: int, ctx: WorkflowContext) -> int:
    raise Permanent("no")


shop = Saga("shop", version=1, body=hold >> (pay | send) >> pure(both))
patient = Saga("patient", version=1, body=hold.named("hold_it") >> call_later)
unlucky = Saga("unlucky", version=1, body=lose)
slow = Saga("slow", version=1, body=sleep_long)
asking = Saga("asking", version=1, body=charge.named("ask") >> verdict.wait())
family = Saga("family", version=1, body=pure(twins) >> each(asking.child()))
broken_undo = Saga("broken-undo", version=1, body=charge >> refuse)
