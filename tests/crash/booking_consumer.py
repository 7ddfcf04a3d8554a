"""A downstream service that books each event, in a process that a test kills."""

from __future__ import annotations

import asyncio
import signal
import sys

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.messaging import ConsumerSettings, Event, EventConsumer

SETTINGS = ConsumerSettings(session_timeout=1.5, commit_every=0.2, concurrency=8)


async def main(servers: str, topic: str, dsn: str) -> None:
    consumer = EventConsumer(servers, group=topic, topic=topic, database=dsn, settings=SETTINGS)

    @consumer.on()
    async def book(event: Event, db: AsyncSession) -> None:
        values = {"saga": event.saga_id, "cents": event.data["output"]["cents"]}
        await db.execute(text("INSERT INTO ledger VALUES (:saga, :cents)"), values)
        await db.execute(
            text("UPDATE account SET cents = cents + :cents, events = events + 1"), values
        )

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("up", flush=True)
    await consumer.run(stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
