"""A small town for the participants: few articles, few people, round sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from sagas.participants.bank import Bank
from sagas.participants.books import Books, balance_books
from sagas.participants.credit import CreditBureau
from sagas.participants.desk import Desk
from sagas.participants.effects import Effect, effect
from sagas.participants.lender import Lender
from sagas.participants.mail import Mail
from sagas.participants.parcels import Parcels
from sagas.participants.receipts import Receipts
from sagas.participants.stock import Stock
from sagas.participants.travel import Travel
from sagas.participants.users import Users

CATALOGUE: dict[str, Any] = {
    "articles": [
        {"article": "lamp", "name": "Lamp", "cents": 1_000, "stock": 10},
        {"article": "chair", "name": "Chair", "cents": 5_000, "stock": 1_000},
    ],
    "customers": [
        {"customer": "ann", "address": "Mill Lane 1, Ghent", "country": "BE", "tax_id": "BE1"},
        {"customer": "tim", "address": "Base 1, McMurdo", "country": "AQ", "tax_id": None},
    ],
    "accounts": [
        {"account": "ann", "balance": 100_000, "card_limit": 50_000},
        {"account": "tim", "balance": 3_000, "card_limit": 50_000},
        {"account": "old", "balance": 0, "card_limit": 50_000, "closed": True},
    ],
    "countries": [{"country": "BE", "served": True}, {"country": "AQ", "served": False}],
    "banned_users": ["mallory@example.org"],
    "refusing_domains": ["no-mail.example"],
    "offers": [
        {"offer": "flight-porto", "kind": "flight", "cents": 2_000, "places": 2},
        {"offer": "hotel-porto", "kind": "hotel", "cents": 1_500, "places": 2},
        {"offer": "car-porto", "kind": "car", "cents": 900, "places": 2},
        {"offer": "flight-atlantis", "kind": "flight", "cents": 2_000, "places": 0},
    ],
    "travellers": [
        {"traveller": "ann", "papers": ["passport", "licence"]},
        {"traveller": "tim", "papers": ["passport"]},
    ],
    "credit_files": [
        {"applicant": "ann", "score": 700},
        {"applicant": "tim", "score": 400},
        {"applicant": "old", "score": 700},
    ],
    "funds": [{"fund": "retail", "cents": 5_000_000}],
}


@dataclass(frozen=True)
class Town:
    """All participants over one pool."""

    pool: asyncpg.Pool
    stock: Stock
    bank: Bank
    parcels: Parcels
    receipts: Receipts
    users: Users
    mail: Mail
    travel: Travel
    credit: CreditBureau
    lender: Lender
    desk: Desk

    async def books(self) -> Books:
        return await balance_books(self.pool)

    async def effect(self, key: str) -> Effect:
        found = await effect(self.pool, key)
        assert found is not None, f"nothing is known about {key}"
        return found

    async def value(self, query: str, *arguments: object) -> Any:
        return await self.pool.fetchval(query, *arguments)

    async def on_hand(self, article: str) -> int:
        return int(
            await self.value(
                "SELECT on_hand FROM participants.stock_article WHERE article = $1", article
            )
        )

    async def account(self, name: str) -> tuple[int, int, int]:
        """Cents, reserved, pending."""
        row = await self.pool.fetchrow(
            "SELECT cents, reserved, pending FROM participants.bank_account WHERE account = $1",
            name,
        )
        assert row is not None
        return row["cents"], row["reserved"], row["pending"]

    async def places(self, offer: str) -> int:
        return int(
            await self.value("SELECT places FROM participants.travel_offer WHERE offer = $1", offer)
        )

    async def fund(self) -> int:
        return int(await self.value("SELECT cents FROM participants.lender_fund"))

    async def takings(self) -> int:
        return int(await self.value("SELECT sum(cents) FROM participants.bank_till"))
