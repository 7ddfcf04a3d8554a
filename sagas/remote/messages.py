"""What the saga and the payments service say to each other: the contract, known to both."""

from __future__ import annotations

from pydantic import BaseModel, Field

TOPIC = "payments.commands"


class Charge(BaseModel, frozen=True):
    """Take that much from that account, for this order."""

    order_id: str = Field(min_length=1)
    account: str = Field(min_length=1)
    cents: int = Field(gt=0)


class Payment(BaseModel, frozen=True):
    """The money was taken."""

    payment_id: str
    cents: int


class Refund(BaseModel, frozen=True):
    """Give back what that command took."""

    charged_by: str


class Refunded(BaseModel, frozen=True):
    """How much was given back: nothing where nothing had been taken."""

    cents: int
