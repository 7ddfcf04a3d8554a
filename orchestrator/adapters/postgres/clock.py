"""The database's clock, carried on by this machine's monotonic one between two looks."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from orchestrator.adapters.postgres.pool import Database

_SLOW = 1.0


class DatabaseClock:
    """Time as Postgres tells it, without a question for each look."""

    def __init__(self) -> None:
        self._base = datetime.now(UTC)
        self._since = time.monotonic()

    def now(self) -> datetime:
        return self._base + timedelta(seconds=time.monotonic() - self._since)

    def observe(self, told: datetime, sent: float, received: float) -> None:
        """Set the clock by an answer of the database; one that took too long says too little."""
        if received - sent <= _SLOW:
            self._base, self._since = told, (sent + received) / 2

    async def sync(self, database: Database) -> None:
        """Ask the database for the time."""
        sent = time.monotonic()
        rows = await database.fetch("SELECT clock_timestamp() AS now")
        self.observe(rows[0]["now"], sent, time.monotonic())
