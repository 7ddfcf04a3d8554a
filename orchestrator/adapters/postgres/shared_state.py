"""What sagas know of each other, one statement a call; the arithmetic of `domain.policies` in SQL.

Nobody waits here while holding a row that another call waits for: each call locks one row by its
key, and whatever is swept up besides is skipped when it is in use.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from orchestrator.adapters.postgres.pool import Database, Record
from orchestrator.adapters.postgres.statements import sql
from orchestrator.domain.events import Json
from orchestrator.domain.policies import GLANCE, LATE, BudgetRule, CacheRule, Circuit, Rate
from orchestrator.ports import Held, Hit

_RECEIPTS_KEPT = timedelta(days=90)


class PostgresSharedState:
    """orchestrator.ports.SharedState. A receipt is remembered for 90 days."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._namespace = database.settings.namespace

    # ------------------------------------------------------------------ circuits

    async def admit(self, circuit: Circuit) -> Held | None:
        rows = await self._run("admit_call", circuit.name, circuit.reset, circuit.probes, GLANCE)
        return _held(rows[0]["until"]) if rows else None

    async def report(self, circuit: Circuit, *, succeeded: bool) -> None:
        if succeeded:
            await self._run("report_success", circuit.name, circuit.reset, circuit.probes)
        else:
            await self._run("report_failure", circuit.name, circuit.reset, circuit.failures)

    # ------------------------------------------------------------------ rates

    async def reserve(self, rate: Rate, turn: datetime | None = None) -> Held | None:
        row = await self._ask(
            "reserve_call", rate.name, rate.each, rate.calls * rate.each, turn, LATE
        )
        return _held(row["until"])

    # ------------------------------------------------------------------ caches

    async def look_up(
        self, cache: CacheRule, key: str, holder: str, patience: timedelta
    ) -> Hit | Held | None:
        row = await self._ask(
            "look_up_output",
            cache.name,
            self._digest(cache, key),
            holder,
            cache.ttl,
            patience,
            GLANCE,
        )
        output: Json | None = row["output"]
        return Hit(output) if output is not None else _held(row["until"])

    async def keep(self, cache: CacheRule, key: str, holder: str, output: Json) -> None:
        """As the port says; who has lost its turn stores nothing."""
        await self._run(
            "keep_output", cache.name, self._digest(cache, key), holder, output, cache.max_size
        )

    async def let_go(self, cache: CacheRule, key: str, holder: str) -> None:
        await self._database.fetch(sql("give_up_output"), self._digest(cache, key), holder)

    # ------------------------------------------------------------------ budgets

    async def spent(self, budget: BudgetRule) -> float:
        rows = await self._run("read_budget", budget.name, budget.per)
        return float(rows[0]["spent"]) if rows else 0.0

    async def spend(self, budget: BudgetRule, amount: float, receipt: str) -> None:
        await self._run(
            "spend_budget", budget.name, budget.per, receipt, float(amount), _RECEIPTS_KEPT
        )

    # ------------------------------------------------------------------ statements

    def _digest(self, cache: CacheRule, key: str) -> bytes:
        # No text in this database has a NUL in it, so this runs no two names together.
        return hashlib.sha256(f"{self._namespace}\0{cache.name}\0{key}".encode()).digest()

    async def _run(self, statement: str, name: str, *args: object) -> list[Record]:
        return await self._database.fetch(sql(statement), self._namespace, name, *args)

    async def _ask(self, statement: str, name: str, *args: object) -> Record:
        """The answer of a statement that has none while another call makes the row it needs."""
        while True:
            if rows := await self._run(statement, name, *args):
                return rows[0]


def _held(until: datetime | None) -> Held | None:
    return None if until is None else Held(until)
