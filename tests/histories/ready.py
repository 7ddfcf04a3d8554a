"""The ready sagas, each on an input that ends well and on one that is taken back."""

from __future__ import annotations

from typing import Any

from orchestrator import Saga
from sagas import (
    assistant,
    loan_approval,
    money_transfer,
    order_fulfilment,
    sign_up,
    trip_booking,
)
from tests.crash.scenarios import SCENARIOS

SIMULATED: dict[str, Saga[Any, Any]] = {
    "trip": trip_booking.saga,
    "loan": loan_approval.saga,
    "assistant": assistant.saga,
}
"""Recorded by the simulator, with fakes in place of their participants."""

RUNS: dict[str, tuple[Saga[Any, Any], Any]] = {
    "order": (order_fulfilment.saga, SCENARIOS["order"].input(1)),
    "order-refused": (order_fulfilment.saga, SCENARIOS["order-refused"].input(1)),
    "transfer": (money_transfer.saga, SCENARIOS["transfer"].input(1)),
    "transfer-refused": (money_transfer.saga, SCENARIOS["transfer-refused"].input(1)),
    "sign-up": (sign_up.saga, SCENARIOS["sign-up"].input(1)),
    "sign-up-refused": (sign_up.saga, SCENARIOS["sign-up-refused"].input(1)),
}
