"""Every ready saga, killed everywhere: it comes out whole."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import Signal
from orchestrator.testing import crash_points
from sagas import SAGAS
from sagas.assistant import Ask
from sagas.loan_approval import Application, Verdict, verdict
from sagas.money_transfer import Transfer
from sagas.order_fulfilment import PlaceOrder
from sagas.sign_up import SignUp
from sagas.trip_booking import BookTrip, Leg
from tests.sagas.fakes import fakes

INPUTS: dict[str, Any] = {
    "order-fulfilment": PlaceOrder(
        order_id="order-1",
        customer="ann",
        article="lamp",
        quantity=2,
        cents=2_000,
        address="Mill Lane 1, Ghent",
        country="BE",
    ),
    "money-transfer": Transfer(transfer_id="transfer-1", source="ann", target="tim", cents=700),
    "sign-up": SignUp(email="ann@example.org", name="Ann"),
    "trip-booking": BookTrip(
        trip_id="trip-1",
        traveller="ann",
        legs=[
            Leg(kind="flight", offer="flight-porto", cents=22_900),
            Leg(kind="hotel", offer="hotel-porto", cents=15_900),
        ],
    ),
    "loan-approval": Application(
        loan_id="loan-1", applicant="ann", cents=3_000_000, months=60, income_cents=300_000
    ),
    "assistant": Ask(
        user="ann@example.org", text="note buy milk and then mail tim@example.org about lunch"
    ),
}
SIGNALS: dict[str, list[tuple[Signal[Any], Any]]] = {
    "loan-approval": [(verdict, Verdict(approved=True, by="ann"))],
}


def test_every_ready_saga_is_tried() -> None:
    assert {saga.name for saga in SAGAS} == set(INPUTS)


@pytest.mark.parametrize("name", INPUTS)
def test_a_ready_saga_survives_every_crash(name: str) -> None:
    saga = next(saga for saga in SAGAS if saga.name == name)
    report = crash_points(saga, INPUTS[name], resources=fakes, signals=SIGNALS.get(name, ()))
    assert report.points > 20 * len(saga.steps)
    assert report.troubles > 3 * len(saga.steps)
    assert not report.cut
