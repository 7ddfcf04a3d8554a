"""A worker process for the scenes, which dies at a chosen point; and the nursery that forks them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from orchestrator import Worker, WorkerSettings
from orchestrator.bootstrap import open_app
from orchestrator.catalogue import Catalogue
from orchestrator.ports import Append, Transaction, Transactions
from orchestrator.settings import Settings
from tests.crash.doomed_worker import DoomedEvents, DoomedQueue, Job, Journal, main
from tests.runtime.scenes import Diary, Scene

KINDS = (
    "claim-after",
    "append-before",
    "append-during",
    "append-after",
    "commit-before",
    "commit-during",
    "commit-after",
    "effect-before",
    "effect-after",
)
"""As in the crash tests, and round the commits of steps that run in a transaction."""


class MortalTransactions:
    """The transactions of steps, watched."""

    def __init__(self, transactions: Transactions, journal: Journal) -> None:
        self._transactions = transactions
        self._journal = journal

    def open(self, wanted: Any) -> AbstractAsyncContextManager[Transaction]:
        return self._open(wanted)

    @asynccontextmanager
    async def _open(self, wanted: Any) -> AsyncIterator[Transaction]:
        async with self._transactions.open(wanted) as transaction:
            yield MortalTransaction(transaction, self._journal)


class MortalTransaction:
    """One transaction, watched."""

    def __init__(self, transaction: Transaction, journal: Journal) -> None:
        self.handle = transaction.handle
        self._transaction = transaction
        self._journal = journal

    async def append(self, append: Append) -> int:
        self._journal.note("commit-before")
        answer = asyncio.create_task(self._append(append))
        # A commit takes several round trips: some are under way, some were answered.
        for _ in range(20):
            await asyncio.sleep(0)
        self._journal.note("commit-during")
        sequence = await answer
        self._journal.note("commit-after")
        return sequence

    async def _append(self, append: Append) -> int:
        return await self._transaction.append(append)


async def work(job: Job) -> None:
    """Be the worker until the instances of the job have ended, or until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    journal = Journal(job)
    sagas = tuple(Scene(name, number).saga for name, number in job.definitions)
    catalogue = Catalogue(sagas)
    async with open_app(Settings(database_url=SecretStr(job.dsn)), catalogue) as app:
        store = replace(
            app.store,
            events=DoomedEvents(app.store.events, journal),
            queue=DoomedQueue(app.store.queue, journal),
            transactions=MortalTransactions(app.store.transactions, journal),
        )
        diary = Diary(Path(f"{job.journal}.diary"), journal.note)
        settings = WorkerSettings(**dict(job.settings))  # type: ignore[arg-type]  # from JSON
        worker = Worker(
            store, app.orchestrator.codec, app.telemetry, sagas, {Diary: diary}, settings
        )
        working = asyncio.create_task(worker.run(stop))
        if job.until:
            every = asyncio.gather(*(app.orchestrator.wait(saga_id) for saga_id in job.until))
            await asyncio.wait({working, every}, return_when=asyncio.FIRST_COMPLETED)
            every.cancel()
            stop.set()
        await working


if __name__ == "__main__":
    main(work)
