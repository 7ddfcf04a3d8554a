"""What the ready sagas need from a worker: their participants, over one pool of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from sagas.models import LocalModels, ModelClient
from sagas.participants.bank import Bank
from sagas.participants.credit import CreditBureau
from sagas.participants.desk import Desk
from sagas.participants.lender import Lender
from sagas.participants.mail import Mail
from sagas.participants.parcels import Parcels
from sagas.participants.receipts import Receipts
from sagas.participants.seed import open_for_business
from sagas.participants.stock import Stock
from sagas.participants.travel import Travel
from sagas.participants.users import Users


@asynccontextmanager
async def resources(dsn: str, *, connections: int = 8) -> AsyncIterator[dict[type, object]]:
    """Open the participants of one worker, installed and with their catalogue; close them at the end."""
    async with open_pool(dsn, connections=connections) as pool:
        await open_for_business(pool)
        yield {
            Stock: Stock(pool),
            Bank: Bank(pool),
            Parcels: Parcels(pool),
            Receipts: Receipts(pool),
            Users: Users(pool),
            Mail: Mail(pool),
            Travel: Travel(pool),
            CreditBureau: CreditBureau(pool),
            Lender: Lender(pool),
            Desk: Desk(pool),
            ModelClient: LocalModels(),
        }


def open_pool(dsn: str, *, connections: int = 8) -> asyncpg.Pool:
    """The pool that participants use."""
    return asyncpg.create_pool(
        dsn, min_size=1, max_size=connections, command_timeout=20, reset=_as_it_is
    )


async def _as_it_is(connection: object) -> None:
    """Participants change nothing in a session, so a round trip to reset it would be wasted."""
