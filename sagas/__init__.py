"""Ready sagas, one module each, and the resources that their workers need."""

from sagas import (
    assistant,
    loan_approval,
    money_transfer,
    order_fulfilment,
    sign_up,
    trip_booking,
)
from sagas.resources import resources

SAGAS = (
    order_fulfilment.saga,
    money_transfer.saga,
    sign_up.saga,
    trip_booking.saga,
    loan_approval.saga,
    assistant.saga,
)

__all__ = [
    "SAGAS",
    "assistant",
    "loan_approval",
    "money_transfer",
    "order_fulfilment",
    "resources",
    "sign_up",
    "trip_booking",
]
