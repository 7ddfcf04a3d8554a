"""A purchase: hold the goods here, have the money taken by the payments service, ship."""

from __future__ import annotations

from pydantic import BaseModel, Field

from orchestrator import Attempted, Completed, Permanent, Saga, WorkflowContext, remote, step
from sagas.remote.messages import TOPIC, Charge, Payment, Refund, Refunded


class Purchase(BaseModel, frozen=True, extra="forbid"):
    """Who buys what, and where it goes."""

    order_id: str = Field(min_length=1)
    account: str
    cents: int = Field(gt=0)
    country: str = "CH"


class Shipped(BaseModel, frozen=True):
    """The parcel is on its way."""

    order_id: str
    payment_id: str


def _by_key(tried: Attempted[Charge, Payment]) -> Refund:
    return Refund(charged_by=tried.key)


def _by_payment(done: Completed[Charge, Payment]) -> Refund:
    return Refund(charged_by=done.key)


@step
async def bill(order: Purchase, ctx: WorkflowContext) -> Charge:
    """What is to be paid."""
    return Charge(order_id=order.order_id, account=order.account, cents=order.cents)


refund = remote("payments.refund", input=Refund, output=Refunded, topic=TOPIC, timeout=10)

charge = remote(
    "payments.charge", input=Charge, output=Payment, topic=TOPIC, timeout=10, retries=1
).undo_with(refund, _by_payment, on_doubt=_by_key)


@step
async def ship(payment: Payment, ctx: WorkflowContext) -> Shipped:
    """Refuses what cannot be sent there: then the money goes back."""
    order: Purchase = ctx.input
    if order.country == "XX":
        raise Permanent("nothing is shipped there")
    return Shipped(order_id=order.order_id, payment_id=payment.payment_id)


saga = Saga(
    "remote-purchase", version=1, body=bill.without_undo("it only adds up") >> charge >> ship
)
