"""A small shop to be simulated: services that tell repeats by their keys, and sagas that use them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from orchestrator import Attempted, Completed, Permanent, Saga, WorkflowContext, pure, step


class Order(BaseModel, frozen=True):
    """What a customer asks for."""

    sku: str
    cents: int


class Held(BaseModel, frozen=True):
    """The article is set aside."""

    hold_id: str
    cents: int


class Paid(BaseModel, frozen=True):
    """The customer has paid."""

    payment_id: str


@dataclass
class Stock:
    """Articles by key."""

    held: dict[str, str] = field(default_factory=dict)

    async def hold(self, sku: str, *, key: str) -> str:
        self.held.setdefault(key, sku)
        return key

    async def release(self, key: str) -> None:
        self.held[key] = "released"


@dataclass
class Bank:
    """An account; a key is charged once, and given back once."""

    balance: int = 1_000
    charges: dict[str, int] = field(default_factory=dict)
    calls: int = 0

    async def charge(self, cents: int, *, key: str) -> str:
        self.calls += 1
        if cents > self.balance:
            raise Permanent("not enough money")
        if key not in self.charges:
            self.charges[key] = cents
            self.balance -= cents
        return key

    async def refund(self, key: str) -> None:
        self.balance += self.charges.pop(key, 0)


@step
async def hold_stock(order: Order, ctx: WorkflowContext) -> Held:
    key = await ctx.use(Stock).hold(order.sku, key=ctx.idempotency_key)
    return Held(hold_id=key, cents=order.cents)


@hold_stock.compensation_on_doubt
async def release_stock(tried: Attempted[Order, Held], ctx: WorkflowContext) -> None:
    await ctx.use(Stock).release(tried.key)


@step
async def take_payment(held: Held, ctx: WorkflowContext) -> Paid:
    return Paid(payment_id=await ctx.use(Bank).charge(held.cents, key=ctx.idempotency_key))


@take_payment.compensation_on_doubt
async def give_back(tried: Attempted[Held, Paid], ctx: WorkflowContext) -> None:
    await ctx.use(Bank).refund(tried.key)


@step
def book_parcel(held: Held, ctx: WorkflowContext) -> str:
    """A plain function: no thread is started for it in a simulation."""
    return f"parcel of {held.hold_id[-1:]}"


@book_parcel.compensation_on_doubt
async def cancel_parcel(tried: Any, ctx: WorkflowContext) -> None:
    """Nothing was booked anywhere."""


def receipt(done: tuple[Paid, str]) -> str:
    return done[1]


@step
async def write_receipt(parcel: str, ctx: WorkflowContext) -> str:
    return f"receipt of {parcel}"


@write_receipt.compensation
async def withdraw_receipt(done: Completed[str, str], ctx: WorkflowContext) -> None:
    """Nothing was written anywhere."""


@write_receipt.compensation_on_doubt
async def withdraw_if_written(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
    """Nothing was written anywhere."""


order = Saga(
    "order",
    version=1,
    body=hold_stock >> (take_payment | book_parcel) >> pure(receipt) >> write_receipt,
)

LAMP = Order(sku="lamp", cents=300)


def services() -> dict[type, Any]:
    """Fresh ones."""
    return {Stock: Stock(), Bank: Bank()}
