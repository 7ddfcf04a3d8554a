"""Everything one Postgres database gives, wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.adapters.postgres.clock import DatabaseClock
from orchestrator.adapters.postgres.event_store import PostgresEventStore
from orchestrator.adapters.postgres.feed import PostgresFeed
from orchestrator.adapters.postgres.fleet import PostgresFleet
from orchestrator.adapters.postgres.hints import PostgresHints
from orchestrator.adapters.postgres.inbox import PostgresInbox
from orchestrator.adapters.postgres.pool import Database, PostgresSettings
from orchestrator.adapters.postgres.read_model import PostgresReadModel
from orchestrator.adapters.postgres.requests import PostgresRequests
from orchestrator.adapters.postgres.schema import verify_schema
from orchestrator.adapters.postgres.shared_state import PostgresSharedState
from orchestrator.adapters.postgres.transactions import PostgresTransactions
from orchestrator.adapters.postgres.work_queue import PostgresWorkQueue
from orchestrator.ports import Store, Telemetry


@asynccontextmanager
async def open_store(
    dsn: str, *, settings: PostgresSettings | None = None, telemetry: Telemetry | None = None
) -> AsyncIterator[Store]:
    """The ports over the database at *dsn*.

    Raises UnavailableError within `connect_timeout` when it cannot be reached, SchemaError when
    its schema does not fit this code.
    """
    database = Database(dsn, settings or PostgresSettings())
    clock = DatabaseClock()
    fleet = PostgresFleet(database, clock)
    hints = PostgresHints(database)
    transactions = PostgresTransactions(database)
    try:
        await database.open()
        await database.with_connection(verify_schema)
        await clock.sync(database)
        yield Store(
            PostgresEventStore(database),
            PostgresWorkQueue(database),
            fleet,
            PostgresRequests(database),
            PostgresInbox(database),
            PostgresFeed(database, telemetry=telemetry),
            PostgresReadModel(database),
            clock,
            hints,
            shared=PostgresSharedState(database),
            transactions=transactions,
        )
    finally:
        await hints.close()
        await fleet.close()
        await transactions.close()
        await database.close()
