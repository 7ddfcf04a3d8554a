"""What both type checkers must accept, with the types that they must find."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from orchestrator import (
    Attempted,
    Compensation,
    Completed,
    Handle,
    Orchestrator,
    Parallel,
    Permanent,
    Primitive,
    Retry,
    Retryable,
    Saga,
    Sequential,
    Step,
    Timeout,
    WorkflowContext,
    pure,
    step,
)


class PlaceOrder(BaseModel):
    sku: str
    cents: int


class Hold(BaseModel):
    hold_id: str
    cents: int


class Payment(BaseModel):
    payment_id: str


class Parcel(BaseModel):
    tracking: str


class Receipt(BaseModel):
    tracking: str


@step(retries=3, timeout=30)
async def hold_stock(order: PlaceOrder, ctx: WorkflowContext) -> Hold:
    return Hold(hold_id=ctx.idempotency_key, cents=order.cents)


@hold_stock.compensation
async def release_stock(done: Completed[PlaceOrder, Hold], ctx: WorkflowContext) -> None:
    assert_type(done.input, PlaceOrder)
    assert_type(done.output, Hold)


@step
async def take_payment(hold: Hold, ctx: WorkflowContext) -> Payment:
    if hold.cents > 1_000_000:
        raise Permanent("too much")
    if hold.cents > 1_000:
        raise Retryable("later", after=5)
    return Payment(payment_id="p")


@take_payment.compensation_on_doubt(retries=5, timeout=10)
async def give_back(tried: Attempted[Hold, Payment], ctx: WorkflowContext) -> None:
    assert_type(tried.output, Payment | None)


@step
async def book_parcel(hold: Hold, ctx: WorkflowContext) -> Parcel:
    return Parcel(tracking="t")


@step
async def screen_fraud(hold: Hold, ctx: WorkflowContext) -> float:
    return 0.5


@step
async def screen_payment(payment: Payment, ctx: WorkflowContext) -> bool:
    return True


@step(once=True, timeout=None)
async def write_receipt(parts: tuple[Payment, Parcel, float], ctx: WorkflowContext) -> Receipt:
    assert_type(ctx.output(hold_stock), Hold)
    assert_type(ctx.output(screen_fraud), float)
    return Receipt(tracking=parts[1].tracking)


def tracking(receipt: Receipt) -> str:
    return receipt.tracking


def len_of(parcel: Parcel) -> int:
    return len(parcel.tracking)


async def cancel_parcel(done: Completed[Hold, Parcel], ctx: WorkflowContext) -> None:
    return None


assert_type(hold_stock, Step[PlaceOrder, Hold])
assert_type(hold_stock >> take_payment, Primitive[PlaceOrder, Payment])
assert_type(take_payment | book_parcel, Parallel[Hold, Payment, Parcel])
assert_type(take_payment | book_parcel | screen_fraud, Parallel[Hold, Payment, Parcel, float])

body = hold_stock >> (take_payment | book_parcel | screen_fraud) >> write_receipt
assert_type(body, Primitive[PlaceOrder, Receipt])
assert_type(body.map(tracking), Primitive[PlaceOrder, str])
assert_type(body.map(lambda receipt: len(receipt.tracking)), Primitive[PlaceOrder, int])
assert_type(body >> pure(tracking), Primitive[PlaceOrder, str])

nested = take_payment | (book_parcel | screen_fraud)
assert_type(nested, Parallel[Hold, Payment, tuple[Parcel, float]])

assert_type(take_payment.retry(3).timeout(10), Primitive[Hold, Payment])
assert_type(take_payment.timeout(10).retry(3, on=(OSError, TimeoutError)), Primitive[Hold, Payment])
assert_type(Retry(take_payment, max_retries=3), Retry[Hold, Payment])
assert_type(Timeout(Retry(take_payment), after=120), Timeout[Hold, Payment])
assert_type(Retry(hold_stock >> take_payment) >> screen_payment, Primitive[PlaceOrder, bool])

assert_type(book_parcel.undo(cancel_parcel), Step[Hold, Parcel])
assert_type(book_parcel.named("second"), Step[Hold, Parcel])
assert_type(book_parcel.without_undo("costs nothing"), Step[Hold, Parcel])
pairs = Compensation(((hold_stock, release_stock), (book_parcel, cancel_parcel)))
assert_type(pairs >> pure(len_of), Primitive[PlaceOrder, int])
assert_type(Compensation(((hold_stock, None), (take_payment, None))) >> screen_payment,
            Primitive[PlaceOrder, bool])  # fmt: skip

plain: Sequential[PlaceOrder, Payment] = Sequential((hold_stock, take_payment))
order_saga = Saga("order", version=1, body=body)
assert_type(order_saga, Saga[PlaceOrder, Receipt])


async def accept(orchestrator: Orchestrator, order: PlaceOrder) -> str:
    context = WorkflowContext(correlation_id="c", user_id="ann")
    handle = await orchestrator.start(order_saga, order, key="order-1", context=context)
    assert_type(handle, Handle[Receipt])
    receipt = await handle.result(within=30)
    assert_type(receipt, Receipt)
    return receipt.tracking
