"""The payments service, a process of its own with a database of its own.

    PAYMENTS_DATABASE_URL=postgresql://... SAGA_KAFKA_BOOTSTRAP_SERVERS=localhost:9092 \
        python -m sagas.remote.payments

Any number of them may run: each command has its effect once.
"""

from __future__ import annotations

import asyncio
import os
import signal

import asyncpg

from orchestrator import Permanent
from orchestrator.messaging import CommandContext, Participant
from sagas.remote.messages import TOPIC, Charge, Payment, Refund, Refunded

SCHEMA = """
CREATE TABLE IF NOT EXISTS payment (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    charged_by text NOT NULL,
    order_id   text NOT NULL,
    account    text NOT NULL,
    cents      bigint NOT NULL,
    refunds    integer NOT NULL DEFAULT 0
)"""
LIMIT = 100_000


def payments(participant: Participant) -> None:
    """Declare what this service does."""

    @participant.command("payments.charge", input=Charge, output=Payment)
    async def charge(order: Charge, ctx: CommandContext, db: asyncpg.Connection) -> Payment:
        if order.cents > LIMIT:
            raise Permanent(f"{order.account} has not as much as {order.cents} cents")
        number = await db.fetchval(
            "INSERT INTO payment (charged_by, order_id, account, cents)"
            " VALUES ($1, $2, $3, $4) RETURNING number",
            ctx.idempotency_key, order.order_id, order.account, order.cents,
        )  # fmt: skip
        return Payment(payment_id=f"pay-{number}", cents=order.cents)

    @participant.command("payments.refund", input=Refund, output=Refunded)
    async def refund(wanted: Refund, ctx: CommandContext, db: asyncpg.Connection) -> Refunded:
        cents = await db.fetchval(
            "UPDATE payment SET refunds = refunds + 1 WHERE charged_by = $1 RETURNING cents",
            wanted.charged_by,
        )
        return Refunded(cents=cents or 0)


async def prepare(dsn: str) -> None:
    """Create the table when it is missing."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7275011964121)")
            await connection.execute(SCHEMA)
    finally:
        await connection.close()


async def serve(participant: Participant, dsn: str) -> None:
    """Carry commands out until SIGTERM."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await prepare(dsn)
    payments(participant)
    await participant.run(stop)


if __name__ == "__main__":
    url = os.environ["PAYMENTS_DATABASE_URL"]
    asyncio.run(serve(Participant("payments", topics=(TOPIC,), database_url=url), url))
