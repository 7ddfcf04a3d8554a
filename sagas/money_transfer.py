"""A transfer: reserve the money, debit one account, credit the other, confirm."""

from __future__ import annotations

from pydantic import BaseModel, Field

from orchestrator import Attempted, Saga, WorkflowContext, step
from sagas.participants.bank import Bank


class Transfer(BaseModel, frozen=True, extra="forbid"):
    """Who pays whom, and how much."""

    transfer_id: str = Field(min_length=1)
    source: str
    target: str
    cents: int = Field(gt=0)


class Reserved(BaseModel, frozen=True):
    """Nobody else can spend the money."""

    reservation: str
    transfer: Transfer


class Debited(BaseModel, frozen=True):
    """The money is on its way."""

    debit: str
    transfer: Transfer


class Credited(BaseModel, frozen=True):
    """The money has arrived, pending."""

    credit: str
    transfer: Transfer


class Transferred(BaseModel, frozen=True):
    """The money belongs to its new owner."""

    transfer_id: str
    confirmation: str


@step(retries=3, timeout=30)
async def reserve(order: Transfer, ctx: WorkflowContext) -> Reserved:
    """Set the money aside."""
    reservation = await ctx.use(Bank).reserve(
        order.transfer_id, order.source, order.cents, key=ctx.idempotency_key
    )
    return Reserved(reservation=reservation, transfer=order)


@reserve.compensation_on_doubt
async def free_reservation(tried: Attempted[Transfer, Reserved], ctx: WorkflowContext) -> None:
    """Let the money be spent again."""
    await ctx.use(Bank).release(tried.key)


@step(retries=3, timeout=30)
async def debit(held: Reserved, ctx: WorkflowContext) -> Debited:
    """Take the reserved money off the source account."""
    order = held.transfer
    number = await ctx.use(Bank).debit(
        order.transfer_id, order.source, order.cents, key=ctx.idempotency_key
    )
    return Debited(debit=number, transfer=order)


@debit.compensation_on_doubt
async def give_back(tried: Attempted[Reserved, Debited], ctx: WorkflowContext) -> None:
    """Put the money back on the source account, reserved as before."""
    await ctx.use(Bank).release(tried.key)


@step(retries=3, timeout=30)
async def credit(sent: Debited, ctx: WorkflowContext) -> Credited:
    """Put the money on the target account, pending."""
    order = sent.transfer
    number = await ctx.use(Bank).credit(
        order.transfer_id, order.target, order.cents, key=ctx.idempotency_key
    )
    return Credited(credit=number, transfer=order)


@credit.compensation_on_doubt
async def take_back(tried: Attempted[Debited, Credited], ctx: WorkflowContext) -> None:
    """Take the pending money off the target account."""
    await ctx.use(Bank).release(tried.key)


@step(retries=3, timeout=30)
async def confirm(arrived: Credited, ctx: WorkflowContext) -> Transferred:
    """Hand the money over."""
    order = arrived.transfer
    number = await ctx.use(Bank).confirm(
        order.transfer_id, order.target, order.cents, key=ctx.idempotency_key
    )
    return Transferred(transfer_id=order.transfer_id, confirmation=number)


@confirm.compensation_on_doubt
async def make_pending(tried: Attempted[Credited, Transferred], ctx: WorkflowContext) -> None:
    """Make the money pending again."""
    await ctx.use(Bank).release(tried.key)


saga = Saga("money-transfer", version=1, body=reserve >> debit >> credit >> confirm)
