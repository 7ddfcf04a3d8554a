"""An order: hold the articles, take the payment and book the parcel side by side, write the receipt."""

from __future__ import annotations

from pydantic import BaseModel, Field

from orchestrator import Attempted, Completed, Saga, WorkflowContext, step
from sagas.participants.bank import Bank
from sagas.participants.parcels import Parcels
from sagas.participants.receipts import Receipts
from sagas.participants.stock import Stock


class PlaceOrder(BaseModel, frozen=True, extra="forbid"):
    """What a customer asks for; `cents` is the total."""

    order_id: str = Field(min_length=1)
    customer: str
    article: str
    quantity: int = Field(gt=0, le=1_000_000)
    cents: int = Field(gt=0)
    address: str
    country: str


class Hold(BaseModel, frozen=True):
    """The articles are set aside."""

    hold_id: str
    order: PlaceOrder


class Payment(BaseModel, frozen=True):
    """The customer has paid."""

    payment_id: str


class Parcel(BaseModel, frozen=True):
    """The carrier has the parcel on its list."""

    tracking: str


class Receipt(BaseModel, frozen=True):
    """All is done."""

    receipt_id: str
    order_id: str
    tracking: str


@step(retries=3, timeout=30)
async def hold_stock(order: PlaceOrder, ctx: WorkflowContext) -> Hold:
    """Set the articles aside."""
    stock = ctx.use(Stock)
    hold_id = await stock.hold(
        order.order_id, order.article, order.quantity, key=ctx.idempotency_key
    )
    return Hold(hold_id=hold_id, order=order)


@hold_stock.compensation
async def release_stock(done: Completed[PlaceOrder, Hold], ctx: WorkflowContext) -> None:
    """Put the articles back."""
    await ctx.use(Stock).release(done.key)


@hold_stock.compensation_on_doubt
async def release_stock_if_held(tried: Attempted[PlaceOrder, Hold], ctx: WorkflowContext) -> None:
    """Put the articles back if they were held, and see to it that a late call holds nothing."""
    await ctx.use(Stock).release(tried.key)


@step(retries=3, timeout=30)
async def take_payment(hold: Hold, ctx: WorkflowContext) -> Payment:
    """Charge the customer's card."""
    order = hold.order
    bank = ctx.use(Bank)
    return Payment(
        payment_id=await bank.charge(
            order.order_id, order.customer, order.cents, key=ctx.idempotency_key
        )
    )


@take_payment.compensation_on_doubt
async def give_back(tried: Attempted[Hold, Payment], ctx: WorkflowContext) -> None:
    """Refund what was charged, known or not: the bank finds it by the key of the charge."""
    await ctx.use(Bank).refund(tried.key)


@step(retries=3, timeout=30)
async def book_parcel(hold: Hold, ctx: WorkflowContext) -> Parcel:
    """Have the carrier fetch the parcel."""
    order = hold.order
    parcels = ctx.use(Parcels)
    return Parcel(
        tracking=await parcels.book(
            order.order_id, order.address, order.country, key=ctx.idempotency_key
        )
    )


@book_parcel.compensation_on_doubt
async def cancel_parcel(tried: Attempted[Hold, Parcel], ctx: WorkflowContext) -> None:
    """Call the parcel off."""
    await ctx.use(Parcels).cancel(tried.key)


@step(retries=3, timeout=30)
async def write_receipt(done: tuple[Payment, Parcel], ctx: WorkflowContext) -> Receipt:
    """Write the receipt of what was paid and sent."""
    payment, parcel = done
    order = ctx.output(hold_stock).order
    receipt_id = await ctx.use(Receipts).write(
        order.order_id, order.customer, order.cents, payment.payment_id, parcel.tracking,
        key=ctx.idempotency_key,
    )  # fmt: skip
    return Receipt(receipt_id=receipt_id, order_id=order.order_id, tracking=parcel.tracking)


@write_receipt.compensation_on_doubt
async def withdraw_receipt(
    tried: Attempted[tuple[Payment, Parcel], Receipt], ctx: WorkflowContext
) -> None:
    """Make the receipt void."""
    await ctx.use(Receipts).withdraw(tried.key)


saga = Saga(
    "order-fulfilment",
    version=1,
    body=hold_stock >> (take_payment | book_parcel) >> write_receipt,
)
