"""The ready purchase with little patience, so that what is lost is found out soon."""

from __future__ import annotations

from orchestrator import Saga, remote
from sagas.remote.messages import TOPIC, Charge, Payment, Refund, Refunded
from sagas.remote.purchase import _by_key, _by_payment, bill, ship

refund = remote("payments.refund", input=Refund, output=Refunded, topic=TOPIC, timeout=2)
charge = remote(
    "payments.charge", input=Charge, output=Payment, topic=TOPIC, timeout=2, retries=1
).undo_with(refund, _by_payment, on_doubt=_by_key)

saga = Saga(
    "hasty-purchase", version=1, body=bill.without_undo("it only adds up") >> charge >> ship
)
