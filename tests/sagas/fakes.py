"""The participants of the ready sagas in memory, by the same rules: applied once, undone once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import asyncpg

from sagas.models import LocalModels, ModelClient
from sagas.participants.bank import Bank
from sagas.participants.credit import CreditBureau
from sagas.participants.desk import Desk
from sagas.participants.lender import Lender
from sagas.participants.mail import Mail
from sagas.participants.parcels import Parcels
from sagas.participants.receipts import Receipts
from sagas.participants.refusals import AlreadyUndone, KeyReused
from sagas.participants.stock import Stock
from sagas.participants.travel import Travel
from sagas.participants.users import Users


@dataclass
class Effects:
    """What stands under each key: `live`, `undone`, or `barred` when the undo came first."""

    live: dict[str, tuple[object, ...]] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)

    def apply(self, key: str, *facts: object) -> str:
        if key in self.gone:
            raise AlreadyUndone(f"{key} was taken back and cannot be applied any more")
        if self.live.setdefault(key, facts) != facts:
            raise KeyReused(f"{key} was used with other arguments")
        return f"{facts[0]} under {key}"

    def undo(self, key: str) -> None:
        if key not in self.gone:
            self.gone[key] = "undone" if self.live.pop(key, None) else "barred"

    def settle(self, key: str) -> bool:
        """Whether it stands; if not, it never will."""
        if key not in self.live:
            self.gone.setdefault(key, "barred")
        return key in self.live


@dataclass
class FakeStock(Effects):
    """sagas.participants.stock.Stock"""

    async def hold(self, order_id: str, article: str, quantity: int, *, key: str) -> str:
        return self.apply(key, "hold", order_id, article, quantity)

    async def release(self, key: str) -> None:
        self.undo(key)


@dataclass
class FakeBank(Effects):
    """sagas.participants.bank.Bank"""

    async def charge(self, order_id: str, account: str, cents: int, *, key: str) -> str:
        return self.apply(key, "payment", order_id, account, cents)

    async def refund(self, key: str) -> None:
        self.undo(key)

    async def charged(self, key: str) -> str | None:
        return f"payment under {key}" if self.settle(key) else None

    async def reserve(self, transfer_id: str, account: str, cents: int, *, key: str) -> str:
        return self.apply(key, "reserve", transfer_id, account, cents)

    async def debit(self, transfer_id: str, account: str, cents: int, *, key: str) -> str:
        return self.apply(key, "debit", transfer_id, account, cents)

    async def credit(self, transfer_id: str, account: str, cents: int, *, key: str) -> str:
        return self.apply(key, "credit", transfer_id, account, cents)

    async def confirm(self, transfer_id: str, account: str, cents: int, *, key: str) -> str:
        return self.apply(key, "confirm", transfer_id, account, cents)

    async def release(self, key: str) -> None:
        self.undo(key)


@dataclass
class FakeParcels(Effects):
    """sagas.participants.parcels.Parcels"""

    async def book(self, order_id: str, address: str, country: str, *, key: str) -> str:
        return self.apply(key, "parcel", order_id, address, country)

    async def cancel(self, key: str) -> None:
        self.undo(key)


@dataclass
class FakeReceipts(Effects):
    """sagas.participants.receipts.Receipts"""

    async def write(
        self, order_id: str, customer: str, cents: int, payment: str, tracking: str, *, key: str
    ) -> str:
        return self.apply(key, "receipt", order_id, customer, cents, payment, tracking)

    async def withdraw(self, key: str) -> None:
        self.undo(key)


@dataclass
class FakeUsers(Effects):
    """sagas.participants.users.Users"""

    async def create(self, email: str, name: str, *, key: str) -> str:
        return self.apply(key, "user", email, name)

    async def delete(self, key: str) -> None:
        self.undo(key)

    async def activate(self, user_id: str, *, key: str) -> str:
        return self.apply(key, "activation", user_id)

    async def deactivate(self, key: str) -> None:
        self.undo(key)


@dataclass
class FakeMail(Effects):
    """sagas.participants.mail.Mail"""

    async def send(self, address: str, subject: str, text: str, *, key: str) -> str:
        return self.apply(key, "mail", address, subject, text)

    async def mark_failed(self, key: str) -> None:
        self.undo(key)


@dataclass
class FakeTravel(Effects):
    """sagas.participants.travel.Travel"""

    async def book(self, trip_id: str, offer: str, traveller: str, cents: int, *, key: str) -> str:
        return self.apply(key, "booking", trip_id, offer, traveller, cents)

    async def cancel(self, key: str) -> None:
        self.undo(key)

    async def register(self, trip_id: str, traveller: str, paper: str, *, key: str) -> str:
        return self.apply(key, "registration", trip_id, traveller, paper)

    async def strike(self, key: str) -> None:
        self.undo(key)

    async def issue(self, trip_id: str, booking_id: str, *, key: str) -> str:
        return self.apply(key, "ticket", trip_id, booking_id)


@dataclass
class FakeCreditBureau(Effects):
    """sagas.participants.credit.CreditBureau"""

    async def enquire(self, loan_id: str, applicant: str, *, key: str) -> int:
        self.apply(key, "enquiry", loan_id, applicant)
        return 700

    async def enquired(self, key: str) -> int | None:
        return 700 if self.settle(key) else None

    async def withdraw(self, key: str) -> None:
        self.undo(key)


@dataclass
class FakeLender(Effects):
    """sagas.participants.lender.Lender"""

    async def reserve(self, loan_id: str, fund: str, cents: int, *, key: str) -> str:
        return self.apply(key, "reservation", loan_id, fund, cents)

    async def release(self, key: str) -> None:
        self.undo(key)


class FakeConnection:
    """What sagas.participants.lender.pay_out asks of a connection; it forgets what is not committed."""

    async def fetchval(self, statement: str, *arguments: object) -> int:
        return 1


@dataclass
class FakeDesk(Effects):
    """sagas.participants.desk.Desk"""

    async def write_note(self, owner: str, body: str, *, key: str) -> str:
        return self.apply(key, "note", owner, body)

    async def tear_up(self, key: str) -> None:
        self.undo(key)

    async def remind(self, owner: str, due: str, body: str, *, key: str) -> str:
        return self.apply(key, "reminder", owner, due, body)

    async def forget(self, key: str) -> None:
        self.undo(key)


def fakes() -> dict[type, Any]:
    """Fresh ones, by the types that the sagas ask for."""
    return {
        Stock: FakeStock(),
        Bank: FakeBank(),
        Parcels: FakeParcels(),
        Receipts: FakeReceipts(),
        Users: FakeUsers(),
        Mail: FakeMail(),
        Travel: FakeTravel(),
        CreditBureau: FakeCreditBureau(),
        Lender: FakeLender(),
        asyncpg.Connection: FakeConnection(),
        Desk: FakeDesk(),
        ModelClient: LocalModels(),
    }
