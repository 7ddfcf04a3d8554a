"""The fixture `town`: all participants over a database of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sagas.participants.bank import Bank
from sagas.participants.credit import CreditBureau
from sagas.participants.desk import Desk
from sagas.participants.install import install
from sagas.participants.lender import Lender
from sagas.participants.mail import Mail
from sagas.participants.parcels import Parcels
from sagas.participants.receipts import Receipts
from sagas.participants.seed import seed
from sagas.participants.stock import Stock
from sagas.participants.travel import Travel
from sagas.participants.users import Users
from sagas.resources import open_pool
from tests.sagas.town import CATALOGUE, Town


@pytest.fixture
async def town(dsn: str) -> AsyncIterator[Town]:
    async with open_pool(dsn, connections=20) as pool:
        await install(pool)
        await seed(pool, CATALOGUE)
        yield Town(
            pool, Stock(pool), Bank(pool), Parcels(pool), Receipts(pool), Users(pool), Mail(pool),
            Travel(pool), CreditBureau(pool), Lender(pool), Desk(pool),
        )  # fmt: skip
