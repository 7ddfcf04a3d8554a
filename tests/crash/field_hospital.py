"""What the crash tests share: starting sagas, sending workers to their end, and the inquest."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg
from pydantic import SecretStr

from orchestrator import Status
from orchestrator.bootstrap import App, open_app
from orchestrator.catalogue import Catalogue
from orchestrator.domain import events as ev
from orchestrator.runtime.service import HistoryEntry
from orchestrator.settings import Settings
from sagas.participants.books import balance_books
from sagas.participants.install import install
from sagas.participants.seed import seed
from sagas.resources import open_pool
from tests.crash.doomed_worker import Job
from tests.crash.scenarios import CATALOGUE, SCENARIOS, saga

ROOT = Path(__file__).parents[2]

QUICK = {
    "ttl": 6.0,
    "renew_every": 0.2,
    "command_timeout": 1.0,
    "margin": 1.0,
    "watch_every": 0.2,
    "poll_every": 0.05,
}
"""Deaths are noticed by presence within two looks; the lease is long, for tests on slow machines."""


@dataclass(frozen=True)
class Noted:
    """One line of the journal."""

    at: float
    pid: int
    kind: str
    key: str
    call: str


@dataclass
class Ward:
    """One database with its participants, and the journal of all workers on it."""

    dsn: str
    app: App
    pool: asyncpg.Pool
    path: Path

    async def start(self, scenario: str, numbers: Iterable[int]) -> list[str]:
        """Begin the instances of a scenario; their ids."""
        handles = await asyncio.gather(
            *(
                self.app.orchestrator.start(
                    saga(scenario, n), SCENARIOS[scenario].input(n), key=str(n)
                )
                for n in numbers
            )
        )
        return [handle.saga_id for handle in handles]

    def job(self, definitions: Sequence[tuple[str, int]], **more: Any) -> Job:
        """A worker for *definitions* on this database."""
        more.setdefault("settings", QUICK)
        return Job(self.dsn, str(self.path), list(definitions), **more)

    async def ends(self, ids: Iterable[str], within: float = 60) -> set[Status]:
        """Wait until all instances have ended; the statuses that they ended in."""
        waits = [self.app.orchestrator.wait(saga_id, within) for saga_id in ids]
        return set(await asyncio.gather(*waits))

    def healthy(self, scenario: str, numbers: Iterable[int], ids: Sequence[str]) -> Job:
        """A worker that carries on until all of these instances have ended."""
        return self.job([(scenario, number) for number in numbers], until=list(ids))

    def journal(self) -> list[Noted]:
        """Everything that any worker came by, in order."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        return sorted((Noted(**json.loads(line)) for line in lines), key=lambda noted: noted.at)

    def effects(self) -> Mapping[str, Sequence[Noted]]:
        """What was done and undone, by the saga it was done for."""
        found: dict[str, list[Noted]] = defaultdict(list)
        for noted in self.journal():
            if noted.key:
                found[noted.key.partition("/")[0]].append(noted)
        return found

    async def history(self, saga_id: str) -> list[HistoryEntry]:
        """The events of one instance."""
        return [entry async for entry in self.app.orchestrator.history(saga_id)]


class Nursery:
    """A process that forks workers: everything is imported once, each worker is one of its own."""

    def __init__(self, module: str = "tests.crash.doomed_worker") -> None:
        self._module = module

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    async def send(self, jobs: Sequence[Job], within: float = 90) -> list[int]:
        """Fork a worker for each job, a few at a time; how each one ended, as a process does."""
        return await asyncio.wait_for(asyncio.to_thread(self._send, jobs), within)

    def _send(self, jobs: Sequence[Job]) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._process.stdin.flush()
        ends: list[int] = json.loads(self._process.stdout.readline())
        assert set(ends) <= {0, -signal.SIGKILL}, f"a worker failed: {ends}"
        return ends


class Process:
    """One worker process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def stopped(self, within: float = 30) -> None:
        """Wait until it has stopped itself (SIGSTOP)."""
        look = os.WSTOPPED | os.WEXITED | os.WNOWAIT
        waiting = asyncio.to_thread(os.waitid, os.P_PID, self._process.pid, look)
        found = await asyncio.wait_for(waiting, within)
        assert found is not None
        assert found.si_code == os.CLD_STOPPED, f"it ended with {found.si_status}"

    def send(self, signal_: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(signal_)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()

    async def ended(self, within: float = 20) -> int:
        """Wait for its end; its exit code."""
        return await asyncio.wait_for(self._process.wait(), within)


@asynccontextmanager
async def process(*command: str, **environment: str) -> AsyncIterator[Process]:
    """`python -m command...`, ended with the block at the latest."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, cwd=ROOT, env={**os.environ, **environment}
    )
    try:
        yield Process(started)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


def worker(job: Job) -> AbstractAsyncContextManager[Process]:
    """A worker process that does *job*."""
    return process("tests.crash.doomed_worker", job.line())


async def until(holds: Callable[[], Awaitable[bool]], what: str, within: float = 30) -> None:
    """Look again and again, for at most *within* seconds."""
    limit = asyncio.get_running_loop().time() + within
    while not await holds():
        assert asyncio.get_running_loop().time() < limit, f"{what} did not come within {within} s"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def ward(dsn: str, path: Path) -> AsyncIterator[Ward]:
    """A database with the catalogue of the scenarios loaded."""
    async with (
        open_app(Settings(database_url=SecretStr(dsn)), Catalogue(())) as app,
        open_pool(dsn, connections=2) as pool,
    ):
        await install(pool)
        await seed(pool, CATALOGUE, reset=True)
        yield Ward(dsn, app, pool, path / "journal.jsonl")


async def hold_inquest(
    ward: Ward, scenario: str, saga_id: str, kills: int, effects: Mapping[str, Sequence[Noted]]
) -> None:
    """Every promise about one instance, whatever happened to its workers."""
    expected = SCENARIOS[scenario]
    assert (await ward.app.orchestrator.get(saga_id)).status is expected.ends
    entries = await ward.history(saga_id)
    assert await ward.app.orchestrator.verify(saga_id) == len(entries)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    epochs = [entry.row.epoch for entry in entries]
    assert epochs == sorted(epochs), "an event of an old owner follows one of a new owner"
    assert (await ward.app.orchestrator.replay(saga_id)).agrees
    done, undone = _outcomes(entries)
    # Refused to who came after the dead: nobody knows of the first call, so it is undone too.
    doubted = {entry.node for entry in entries if isinstance(entry.event, ev.StepInDoubt)}
    doubted -= set(done)
    taken_back = [node for node in undone if node not in doubted]
    assert taken_back == [node for node in reversed(done) if expected.ends is Status.COMPENSATED]
    steps = {
        entry.node: entry.event.step
        for entry in entries
        if isinstance(entry.event, ev.StepSucceeded)
    }
    assert {steps[node] for node in taken_back} == set(expected.undone)
    await _check_effects(ward, saga_id, done, undone, kills)
    _check_undo_order(saga_id, undone, effects[saga_id])


def _outcomes(entries: Sequence[HistoryEntry]) -> tuple[list[str], list[str]]:
    """The places that succeeded and those that were compensated, each once, in order."""
    done = [entry.node for entry in entries if isinstance(entry.event, ev.StepSucceeded)]
    undone = [entry.node for entry in entries if isinstance(entry.event, ev.StepCompensated)]
    assert len(set(done)) == len(done), "a result was recorded twice"
    assert len(set(undone)) == len(undone), "an undo was recorded twice"
    return done, undone


async def _check_effects(
    ward: Ward, saga_id: str, done: Sequence[str], undone: Sequence[str], kills: int
) -> None:
    """By the participants' own tables: applied once, undone once, repeats explained by kills."""
    rows = await ward.pool.fetch(
        "SELECT key, state, calls, undos FROM participants.effect WHERE starts_with(key, $1)",
        f"{saga_id}/",
    )
    states = {row["key"].removeprefix(f"{saga_id}/"): row["state"] for row in rows}
    known = {node: state for node, state in states.items() if node in done}
    assert known == {node: "undone" if node in undone else "live" for node in done}
    assert all(state != "live" for node, state in states.items() if node not in done)
    for row in rows:
        assert row["calls"] <= 1 + kills, f"{row['key']} was called {row['calls']} times"
        assert row["undos"] <= 1 + kills, f"{row['key']} was undone {row['undos']} times"


def _check_undo_order(saga_id: str, undone: Sequence[str], effects: Sequence[Noted]) -> None:
    """By the journal: each undo was done before the next one began."""
    undos = [noted for noted in effects if noted.call == "undo"]
    ends = [f"{saga_id}/{node}" for node in undone]
    finished: list[str] = []
    for noted in undos:
        place = ends.index(noted.key)
        assert ends[:place] == finished[:place], f"{noted.key} was undone before its turn"
        if noted.kind == "effect-after" and noted.key not in finished:
            finished.append(noted.key)
    assert finished == ends


async def books_balance(ward: Ward) -> None:
    """All participants' sums agree."""
    assert (await balance_books(ward.pool)).problems == ()
