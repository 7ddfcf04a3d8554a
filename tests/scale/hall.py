"""A database with many instances, worker processes on it, and what is counted there."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from orchestrator import Orchestrator, Order, Saga
from orchestrator.bootstrap import App, open_app
from orchestrator.catalogue import Catalogue
from orchestrator.settings import Settings
from tests.brokers import _die_with_parent
from tests.faces.cli.prompt import environment

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("SCALE_SIZE", "small") == "full"
"""Whether the sizes are those that are promised, and times count."""

full = pytest.mark.skipif(not FULL, reason="its figures want a quiet machine: SCALE_SIZE=full")
BATCH = 1_000
PARKED = """
INSERT INTO saga (id, name, version, fingerprint, status, head, epoch, due_at, correlation_id, context)
SELECT gen_random_uuid(), $1, $2, 'f', 'waiting', 3, 1, now() + $3 + n * interval '1 ms', 'c', '{}'
FROM generate_series(1, $4::int) n
"""
"""Instances that wait for a time which is as far away as $3."""


@dataclass
class Hall:
    """One database, and an orchestrator without a worker."""

    dsn: str
    app: App
    side: asyncpg.Connection[asyncpg.Record]
    folder: Path
    workers: list[WorkerProcess] = field(default_factory=list)

    @property
    def orchestrator(self) -> Orchestrator:
        return self.app.orchestrator

    async def start(self, saga: Saga[int, int], count: int) -> list[str]:
        """Begin so many; their ids."""
        ids: list[str] = []
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            handles = await self.orchestrator.start_many(saga, [Order(n) for n in numbers])
            ids += [handle.saga_id for handle in handles]
        return ids

    async def count(self, where: str, *args: object) -> int:
        """How many instances there are of which this is true."""
        found: int = await self.side.fetchval(f"SELECT count(*) FROM saga WHERE {where}", *args)
        return found

    async def ended(self, saga: Saga[int, int]) -> int:
        """How many of a saga are completed."""
        return await self.count("name = $1 AND status = 'completed'", saga.name)

    async def hire(self, count: int, dsn: str = "", **variables: str) -> list[WorkerProcess]:
        """So many worker processes, each begun anew whenever it dies."""
        hired = []
        for _ in range(count):
            log = self.folder / f"worker{len(self.workers)}.log"
            worker = WorkerProcess(dsn or self.dsn, log, variables)
            self.workers.append(worker)
            worker.begin()
            hired.append(worker)
        for worker in hired:
            await until(worker.works, "a worker that works", within=60)
        return hired

    def dismiss(self) -> None:
        """End all worker processes."""
        for worker in self.workers:
            worker.end()
        self.workers.clear()


@dataclass
class WorkerProcess:
    """`saga worker`, under a supervisor."""

    dsn: str
    log: Path
    variables: dict[str, str]
    deaths: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _watch: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start it, and start it again whenever it dies."""
        self._spawn()
        self._watch = asyncio.create_task(self._supervise())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def works(self) -> bool:
        """Whether it has said that it works."""
        return b"works on" in self.log.read_bytes()

    def says(self, words: str) -> int:
        """How many lines of its log have these words."""
        return sum(words in line for line in self.log.read_text("utf-8").splitlines())

    def end(self) -> None:
        """Kill it for good."""
        if self._watch is not None:
            self._watch.cancel()
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _spawn(self) -> None:
        there = environment(
            SAGA_DATABASE_URL=self.dsn, SAGA_SAGAS="tests.scale.flows", **self.variables
        )
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", "worker"],
                cwd=ROOT, env=there, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=_die_with_parent,
            )  # fmt: skip

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                assert code == -signal.SIGKILL, f"a worker ended with {code}: {self.log}"
                self.deaths += 1
                self._spawn()


@asynccontextmanager
async def open_hall(dsn: str, folder: Path) -> AsyncIterator[Hall]:
    """A hall whose worker processes end with it."""
    async with open_app(Settings(database_url=SecretStr(dsn)), Catalogue(())) as app:
        side = await asyncpg.connect(dsn)
        hall = Hall(dsn, app, side, folder)
        try:
            yield hall
        finally:
            hall.dismiss()
            await side.close()


async def until(
    holds: Callable[[], Awaitable[bool]], what: str, within: float = 30, every: float = 0.05
) -> float:
    """Ask again and again; how many seconds it took. AssertionError when it takes too long."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < within, f"no {what} within {within:g} s"
        await asyncio.sleep(every)
    return time.monotonic() - began


def p99(values: Sequence[float]) -> float:
    """The 99th percentile, and the greatest of less than a hundred."""
    return statistics.quantiles(values, n=100)[98] if len(values) >= 100 else max(values)


def tell(capsys: pytest.CaptureFixture[str], **figures: Any) -> None:
    """Print what was measured, whatever pytest keeps to itself."""
    with capsys.disabled():
        told = ", ".join(
            f"{name.replace('_', ' ')} {value:,.1f}"
            if isinstance(value, float)
            else f"{name.replace('_', ' ')} {value:,}"
            for name, value in figures.items()
        )
        print(f"\n  {told}", flush=True)
