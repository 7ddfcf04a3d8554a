"""What `saga consume` serves in tests/crash/test_inbound_killed.py: orders, and their payments."""

from __future__ import annotations

import os

from pydantic import BaseModel

from orchestrator import Saga, Signal, pure
from orchestrator.messaging import on_event, on_signal


class Order(BaseModel, frozen=True):
    order_id: str
    cents: int


class Paid(BaseModel, frozen=True):
    order_id: str
    cents: int


def accept(order: Order) -> Order:
    return order


paid = Signal("paid", Paid)
saga = Saga("order", version=1, body=pure(accept) >> paid.wait())

TOPIC = os.environ.get("TEST_TOPIC", "orders")
placed = on_event(TOPIC, saga, key=lambda order: order.order_id)
payments = on_signal(f"{TOPIC}.payments", paid, saga, key=lambda payment: payment.order_id)
unkeyed = on_event(f"{TOPIC}.unkeyed", saga)
