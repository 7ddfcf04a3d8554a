"""What both type checkers must accept, with the types that they must find.

The numbered parts are the examples of the language's specification, in its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, assert_type

import asyncpg
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from orchestrator import (
    Attempted,
    Budget,
    Cache,
    CircuitBreaker,
    Compensation,
    Completed,
    Fallback,
    Flow,
    Handle,
    Happened,
    NotHappened,
    Orchestrator,
    Parallel,
    Permanent,
    Primitive,
    RateLimit,
    Retry,
    Retryable,
    Router,
    Saga,
    Scope,
    Sequential,
    Signal,
    Step,
    StepError,
    Timeout,
    Unknown,
    View,
    WorkflowContext,
    each,
    flow,
    loop,
    pure,
    remote,
    sleep,
    step,
    transactional,
    when,
)
from orchestrator.testing import Simulator, crash_points, given


class PlaceOrder(BaseModel):
    sku: str
    cents: int
    buyer: str


class Hold(BaseModel):
    hold_id: str
    cents: int


class Payment(BaseModel):
    payment_id: str


class Parcel(BaseModel):
    tracking: str


class Receipt(BaseModel):
    tracking: str


class Refund(BaseModel):
    payment_id: str
    amount: int


class Verdict(BaseModel):
    approved: bool
    by: str


class Basket(BaseModel):
    orders: list[PlaceOrder]


class Stock:
    async def hold(self, sku: str, *, key: str) -> str:
        return key

    async def release(self, hold_id: str) -> None: ...


class Bank:
    async def charge(self, cents: int, *, key: str) -> str:
        return key

    async def refund(self, payment_id: str, *, key: str) -> None: ...


class CardDeclined(Permanent): ...


class Rejected(Permanent): ...


# ---------------------------------------------------------------------------- 1: a step, taken back


@step(retries=3, timeout=30)
async def hold_stock(order: PlaceOrder, ctx: WorkflowContext) -> Hold:
    hold_id = await ctx.use(Stock).hold(order.sku, key=ctx.idempotency_key)
    return Hold(hold_id=hold_id, cents=order.cents)


@hold_stock.compensation
async def release_stock(done: Completed[PlaceOrder, Hold], ctx: WorkflowContext) -> None:
    assert_type(done.input, PlaceOrder)
    assert_type(done.output, Hold)
    await ctx.use(Stock).release(done.output.hold_id)


assert_type(hold_stock, Step[PlaceOrder, Hold])


# ---------------------------------------------------------------------------- 2: undo on doubt, probe


@step
async def take_payment(hold: Hold, ctx: WorkflowContext) -> Payment:
    if hold.cents > 1_000_000:
        raise Permanent("too much")
    if hold.cents > 1_000:
        raise Retryable("later", after=5)
    return Payment(payment_id=await ctx.use(Bank).charge(hold.cents, key=ctx.idempotency_key))


@take_payment.compensation_on_doubt(retries=5, timeout=10)
async def give_back(tried: Attempted[Hold, Payment], ctx: WorkflowContext) -> None:
    assert_type(tried.output, Payment | None)
    if tried.output is not None:
        await ctx.use(Bank).refund(tried.output.payment_id, key=ctx.idempotency_key)


@take_payment.probe(retries=2, timeout=timedelta(seconds=5))
async def was_it_taken(
    tried: Attempted[Hold, Payment], ctx: WorkflowContext
) -> Happened[Payment] | NotHappened | Unknown:
    assert_type(tried.key, str)
    return Happened(Payment(payment_id=tried.key))


# ---------------------------------------------------------------------------- 3: composition


@step
async def book_parcel(hold: Hold, ctx: WorkflowContext) -> Parcel:
    return Parcel(tracking="t")


@book_parcel.probe
async def is_it_booked(tried: Attempted[Hold, Parcel], ctx: WorkflowContext) -> NotHappened:
    return NotHappened()


async def cancel_parcel(done: Completed[Hold, Parcel], ctx: WorkflowContext) -> None:
    return None


@step
def screen_fraud(hold: Hold, ctx: WorkflowContext) -> float:
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
limited = (take_payment | book_parcel).with_options(limit=1, on_failure="cancel", undo="parallel")
assert_type(limited, Parallel[Hold, Payment, Parcel])

order_saga = Saga("order", version=1, body=body, deadline=timedelta(days=3))
assert_type(order_saga, Saga[PlaceOrder, Receipt])
plain: Sequential[PlaceOrder, Payment] = Sequential((hold_stock, take_payment))


# ---------------------------------------------------------------------------- 4: start and await


async def accept(orch: Orchestrator, cmd: PlaceOrder, request_id: str) -> str:
    context = WorkflowContext(correlation_id=request_id, user_id=cmd.buyer)
    handle = await orch.start(order_saga, cmd, key=f"order-{request_id}", context=context)
    assert_type(handle, Handle[Receipt])
    receipt = await handle.result(within=30)
    assert_type(receipt, Receipt)
    return receipt.tracking


# ---------------------------------------------------------------------------- 5: policies


a = (
    take_payment.timeout(10)
    .retry(5, on=(ConnectionError, TimeoutError))
    .circuit("bank", failures=5, reset=60)
)
b = Timeout(Retry(take_payment, max_retries=5), after=120)
assert_type(a, Primitive[Hold, Payment])
assert_type(b, Timeout[Hold, Payment])
assert_type(take_payment.retry(3).timeout(10).scope("try"), Primitive[Hold, Payment])
assert_type(Retry(take_payment, max_retries=3), Retry[Hold, Payment])
assert_type(Retry(hold_stock >> take_payment) >> screen_payment, Primitive[PlaceOrder, bool])
assert_type(Scope(hold_stock >> take_payment), Scope[PlaceOrder, Payment])
assert_type(CircuitBreaker(take_payment, "bank"), CircuitBreaker[Hold, Payment])
assert_type(RateLimit(take_payment, "bank", 10, per=60), RateLimit[Hold, Payment])
assert_type(Cache(screen_fraud, 60, key=lambda hold: hold.hold_id), Cache[Hold, float])
assert_type(Budget(screen_fraud, 5, per=timedelta(days=1), name="n"), Budget[Hold, float])
guarded = (
    screen_fraud.rate_limit("model", 10, per=60)
    .cache(ttl=60, key=lambda hold: hold.hold_id)
    .budget(2.5, name="model", per=timedelta(days=1))
)
assert_type(guarded, Primitive[Hold, float])


# ---------------------------------------------------------------------------- 6: pairs


def len_of(parcel: Parcel) -> int:
    return len(parcel.tracking)


pairs = Compensation(((hold_stock, release_stock), (book_parcel, cancel_parcel)))
assert_type(pairs >> pure(len_of), Primitive[PlaceOrder, int])
signup = Compensation(((hold_stock, None), (take_payment, None), (screen_payment, None)))
assert_type(signup.map(lambda seen: not seen), Primitive[PlaceOrder, bool])
assert_type(book_parcel.undo(cancel_parcel), Step[Hold, Parcel])
assert_type(book_parcel.named("second"), Step[Hold, Parcel])
assert_type(book_parcel.without_undo("costs nothing"), Step[Hold, Parcel])


@step
async def refund_payment(refund: Refund, ctx: WorkflowContext) -> None:
    await ctx.use(Bank).refund(refund.payment_id, key=ctx.idempotency_key)


taken = take_payment.undo_with(
    refund_payment, lambda done: Refund(payment_id=done.output.payment_id, amount=done.input.cents)
)
assert_type(taken, Step[Hold, Payment])

charge = remote(
    "payments.charge", input=Hold, output=Payment, topic="payments.commands", timeout=45
)
assert_type(charge, Step[Hold, Payment])
refund_command = remote("payments.refund", input=Refund, output=Receipt, topic="payments.commands")
charged = charge.undo_with(
    refund_command,
    lambda done: Refund(payment_id=done.output.payment_id, amount=done.input.cents),
    on_doubt=lambda tried: Refund(payment_id=tried.key, amount=tried.input.cents),
)
assert_type(charged, Step[Hold, Payment])


# ---------------------------------------------------------------------------- 7: choices


@step
async def by_card(refund: Refund, ctx: WorkflowContext) -> Payment:
    return Payment(payment_id=refund.payment_id)


@step
async def by_voucher(refund: Refund, ctx: WorkflowContext) -> Payment:
    return Payment(payment_id="voucher")


@step
async def by_hand(refund: Refund, ctx: WorkflowContext) -> Payment:
    return Payment(payment_id="hand")


@step
async def halve(refund: Refund, ctx: WorkflowContext) -> Refund:
    return refund.model_copy(update={"amount": refund.amount // 2})


refund = Router(
    {"small": by_voucher, "normal": by_card},
    router_fn=lambda r, ctx: "small" if r.amount < 500 else "normal",
    default="normal",
)
robust = Fallback(by_card, [by_voucher, by_hand])
big = when(lambda r: r.amount > 100_000, then=by_hand, otherwise=robust)
assert_type(refund >> screen_payment, Primitive[Refund, bool])
assert_type(robust, Fallback[Refund, Payment])
assert_type(by_card.fallback(by_voucher, by_hand), Primitive[Refund, Payment])
assert_type(big, Primitive[Refund, Payment])


def is_large(r: Refund) -> bool:
    return r.amount > 100_000


assert_type(when(is_large, then=halve), Primitive[Refund, Refund])
assert_type(halve >> when(is_large, then=halve) >> by_card, Primitive[Refund, Payment])


# ---------------------------------------------------------------------------- 8: wait


def must_be_approved(verdict: Verdict) -> Verdict:
    if not verdict.approved:
        raise Rejected(verdict.by)
    return verdict


verdict = Signal("verdict", Verdict)
approval = (
    hold_stock
    >> verdict.wait(within=timedelta(days=2))
    >> pure(must_be_approved)
    >> sleep(timedelta(minutes=5))
    >> take_payment.using(lambda v: v.output(hold_stock))
)
assert_type(verdict, Signal[Verdict])
assert_type(approval, Primitive[PlaceOrder, Payment])
assert_type(hold_stock >> sleep(5), Primitive[PlaceOrder, Hold])
assert_type(hold_stock >> sleep(5) >> take_payment, Primitive[PlaceOrder, Payment])
assert_type(hold_stock >> sleep(5) >> sleep(5) >> take_payment, Primitive[PlaceOrder, Payment])
assert_type(sleep(5) >> hold_stock >> take_payment, Primitive[PlaceOrder, Payment])
assert_type(hold_stock.keep(), Primitive[PlaceOrder, tuple[PlaceOrder, Hold]])


def second(pair: tuple[PlaceOrder, Hold]) -> Hold:
    return pair[1]


assert_type(hold_stock.keep().map(second) >> take_payment, Primitive[PlaceOrder, Payment])


def the_hold(v: View) -> Hold:
    assert_type(v.output(hold_stock), Hold)
    return v.output(hold_stock)


assert_type(take_payment.using(the_hold), Primitive[Any, Payment])


async def decide(handle: Handle[Payment]) -> bool:
    return await handle.signal(verdict, Verdict(approved=True, by="ann"))


# ---------------------------------------------------------------------------- 9: each


def lines(basket: Basket) -> list[PlaceOrder]:
    return basket.orders


bulk = Saga(
    "bulk",
    version=1,
    body=pure(lines) >> each(order_saga.child(key=lambda o: o.sku), concurrency=5),
)
assert_type(bulk, Saga[Basket, list[Receipt]])
assert_type(order_saga.child(), Primitive[PlaceOrder, Receipt])
assert_type(each(take_payment), Primitive[Sequence[Hold], list[Payment]])


# ---------------------------------------------------------------------------- 10: pivot, loop


@step
async def poll(parcel: Parcel, ctx: WorkflowContext) -> Parcel:
    ctx.heartbeat()
    return parcel


ship = (
    hold_stock
    >> take_payment.pivot()
    >> book_parcel.using(lambda v: v.output(hold_stock)).retry(1_000)
    >> loop(poll, until=lambda p: p.tracking != "", max_iterations=48, pause=timedelta(minutes=30))
)
assert_type(ship, Primitive[PlaceOrder, Parcel])


# ---------------------------------------------------------------------------- 11: one transaction


@transactional
async def post_ledger(p: Payment, ctx: WorkflowContext, db: AsyncSession) -> Payment:
    await db.execute(text("insert into ledger(payment_id) values (:p)"), {"p": p.payment_id})
    return p


@post_ledger.compensation
async def unpost(done: Completed[Payment, Payment], ctx: WorkflowContext) -> None: ...


@transactional
async def post_twice(p: Payment, ctx: WorkflowContext, db: AsyncSession) -> Payment:
    return p


@post_twice.compensation
async def unpost_here(
    done: Completed[Payment, Payment], ctx: WorkflowContext, db: AsyncSession
) -> None: ...


@post_twice.compensation_on_doubt(retries=5, timeout=10)
async def unpost_if_there(
    tried: Attempted[Payment, Payment], ctx: WorkflowContext, db: AsyncConnection
) -> None: ...


@transactional(name="other", retries=2, timeout=5)
async def post_elsewhere(p: Payment, ctx: WorkflowContext, db: AsyncConnection) -> int:
    return 1


@transactional
async def post_by_driver(
    p: Payment, ctx: WorkflowContext, db: asyncpg.Connection[asyncpg.Record]
) -> int:
    return 1


assert_type(post_ledger, Step[Payment, Payment])
assert_type(post_elsewhere, Step[Payment, int])
assert_type(post_ledger.named("once_more").undo(unpost_here), Step[Payment, Payment])
assert_type(
    Compensation(((post_twice.named("in_pairs"), unpost_here), (post_elsewhere, None))),
    Compensation[Payment, int],
)
assert_type(take_payment >> post_ledger >> post_by_driver, Primitive[Hold, int])


# ---------------------------------------------------------------------------- 13: flows


@flow
async def negotiate(hold: Hold, f: Flow) -> Payment:
    offer = hold
    for _ in range(3):
        answer = await f.receive(verdict, within=timedelta(hours=6))
        assert_type(answer, Verdict)
        if answer.approved:
            try:
                return await f.run(take_payment, offer)
            except StepError as error:
                print(error.kind, error.permanent)
        offer = offer.model_copy(update={"cents": offer.cents * 9 // 10})
        await f.sleep(timedelta(minutes=1))
    assert_type(await f.run(take_payment | book_parcel, offer), tuple[Payment, Parcel])
    raise Rejected("no deal")


deal = Saga("deal", version=2, body=hold_stock >> negotiate)
assert_type(negotiate, Primitive[Hold, Payment])
assert_type(deal, Saga[PlaceOrder, Payment])


# ---------------------------------------------------------------------------- 14: audit


async def audit(h: Handle[Receipt]) -> list[str]:
    return [f"{e.seq} {e.type} {e.node}" async for e in h.history()]


# ---------------------------------------------------------------------------- 15: tests


async def late_failure_undoes_everything(sim: Simulator, cmd: PlaceOrder) -> None:
    sim.stub(take_payment, returns=Payment(payment_id="p1"))
    sim.fail(write_receipt, CardDeclined(), times=99)
    out = await sim.run(order_saga, cmd)
    assert_type(out.result, Receipt)
    assert out.status == "compensated"
    assert out.compensated[-1] == "hold_stock"


async def survives_every_crash(sim: Simulator, cmd: PlaceOrder) -> None:
    async for crashed in sim.crash_points(order_saga, cmd):
        out = await crashed.run(order_saga, cmd)
        assert out.status == "completed"
        assert crashed.effects(take_payment) == 1


def every_moment(cmd: PlaceOrder) -> None:
    by_step = {hold_stock: Hold(hold_id="h1", cents=1)}
    by_name = {"hold_stock": Hold(hold_id="h1", cents=1)}
    crash_points(order_saga, cmd, stubs=by_step)
    crash_points(order_saga, cmd, stubs=by_name)
    crash_points(order_saga, cmd, stubs={hold_stock: by_step[hold_stock], "take_payment": None})
    crash_points(order_saga, cmd, stubs={hold_stock: lambda v: v, take_payment: 1})
    crash_points(order_saga, cmd, fails={hold_stock: CardDeclined, take_payment: CardDeclined()})
    given(order_saga, cmd, stubs=by_step).ends("completed")


# ---------------------------------------------------------------------------- and the rest


@step(executor="process")
def crunch(hold: Hold, ctx: WorkflowContext) -> int:
    ctx.cost(0.5)
    return hold.cents


@step(executor="thread", doubt_on=(TimeoutError,))
def crunch_here(hold: Hold, ctx: WorkflowContext) -> int:
    return hold.cents


assert_type(crunch, Step[Hold, int])
assert_type(crunch_here, Step[Hold, int])
