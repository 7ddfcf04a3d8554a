"""What the ready sagas need from a worker: their participants, over one pool of connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from sagas.participants.bank import Bank
from sagas.participants.install import install
from sagas.participants.mail import Mail
from sagas.participants.parcels import Parcels
from sagas.participants.receipts import Receipts
from sagas.participants.stock import Stock
from sagas.participants.users import Users


@asynccontextmanager
async def resources(dsn: str, *, connections: int = 8) -> AsyncIterator[dict[type, object]]:
    """Open the participants of one worker, their schema installed; close them at the end."""
    async with open_pool(dsn, connections=connections) as pool:
        await install(pool)
        yield {
            Stock: Stock(pool),
            Bank: Bank(pool),
            Parcels: Parcels(pool),
            Receipts: Receipts(pool),
            Users: Users(pool),
            Mail: Mail(pool),
        }


def open_pool(dsn: str, *, connections: int = 8) -> asyncpg.Pool:
    """The pool that participants use."""
    return asyncpg.create_pool(
        dsn, min_size=1, max_size=connections, command_timeout=20, reset=_as_it_is
    )


async def _as_it_is(connection: object) -> None:
    """Participants change nothing in a session, so a round trip to reset it would be wasted."""
