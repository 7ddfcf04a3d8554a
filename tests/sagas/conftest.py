"""The fixture `town`: all participants over a database of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sagas.participants.bank import Bank
from sagas.participants.mail import Mail
from sagas.participants.parcels import Parcels
from sagas.participants.receipts import Receipts
from sagas.participants.seed import seed
from sagas.participants.stock import Stock
from sagas.participants.users import Users
from sagas.resources import open_pool, resources
from tests.sagas.town import CATALOGUE, Town


@pytest.fixture
async def town(dsn: str) -> AsyncIterator[Town]:
    async with resources(dsn), open_pool(dsn, connections=20) as pool:
        await seed(pool, CATALOGUE)
        yield Town(
            pool, Stock(pool), Bank(pool), Parcels(pool), Receipts(pool), Users(pool), Mail(pool)
        )
