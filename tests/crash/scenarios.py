"""Ready sagas under names of their own, so that a worker can be given exactly one instance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator import Saga, Status
from orchestrator.domain.definition import Primitive
from sagas import money_transfer, order_fulfilment, sign_up
from sagas.money_transfer import Transfer
from sagas.order_fulfilment import PlaceOrder
from sagas.sign_up import SignUp

ENOUGH = 1_000

CATALOGUE: dict[str, Any] = {
    "articles": [{"article": "lamp", "name": "Lamp", "cents": 1_000, "stock": 1_000_000}],
    "customers": [
        {"customer": "ann", "address": "Mill Lane 1, Ghent", "country": "BE", "tax_id": "BE1"},
        {"customer": "tim", "address": "Mill Lane 2, Ghent", "country": "BE", "tax_id": None},
    ],
    "accounts": [
        {"account": "ann", "balance": 1_000_000_000, "card_limit": 100_000},
        {"account": "tim", "balance": 1_000_000_000, "card_limit": 100_000},
        {"account": "old", "balance": 0, "card_limit": 100_000, "closed": True},
    ],
    "countries": [{"country": "BE", "served": True}],
    "banned_users": [f"banned{number}@example.org" for number in range(ENOUGH)],
    "refusing_domains": [],
}


@dataclass(frozen=True)
class Scenario:
    """A flow, the input of its n-th instance, and how it ends when nobody dies."""

    body: Primitive[Any, Any]
    input: Callable[[int], Any]
    ends: Status
    undone: tuple[str, ...] = ()


def _order(customer: str, street: int) -> Callable[[int], PlaceOrder]:
    def order(number: int) -> PlaceOrder:
        return PlaceOrder(
            order_id=f"order-{number}",
            customer=customer,
            article="lamp",
            quantity=2,
            cents=2_000,
            address=f"Mill Lane {street}, Ghent",
            country="BE",
        )

    return order


def _transfer(target: str) -> Callable[[int], Transfer]:
    def transfer(number: int) -> Transfer:
        return Transfer(transfer_id=f"transfer-{number}", source="ann", target=target, cents=700)

    return transfer


def _sign_up(who: str) -> Callable[[int], SignUp]:
    def form(number: int) -> SignUp:
        return SignUp(email=f"{who}{number}@example.org", name=who)

    return form


SCENARIOS = {
    "order": Scenario(order_fulfilment.saga.body, _order("ann", 1), Status.COMPLETED),
    "order-refused": Scenario(
        order_fulfilment.saga.body,
        _order("tim", 2),
        Status.COMPENSATED,
        ("hold_stock", "take_payment", "book_parcel"),
    ),
    "transfer": Scenario(money_transfer.saga.body, _transfer("tim"), Status.COMPLETED),
    "transfer-refused": Scenario(
        money_transfer.saga.body, _transfer("old"), Status.COMPENSATED, ("reserve", "debit")
    ),
    "sign-up": Scenario(sign_up.saga.body, _sign_up("user"), Status.COMPLETED),
    "sign-up-refused": Scenario(
        sign_up.saga.body, _sign_up("banned"), Status.COMPENSATED, ("create_user", "send_email")
    ),
}


def saga(scenario: str, number: int) -> Saga[Any, Any]:
    """The saga of a scenario that only the workers asked for number *number* know."""
    return Saga(f"{scenario}-{number}", version=1, body=SCENARIOS[scenario].body)
