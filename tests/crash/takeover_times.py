"""How long instances stay alone when their worker is killed, stopped, cut off or told to end.

Real `saga worker` processes; every time is the database's own, counted from before the fault. A
look every few milliseconds makes it a little too long, never too short. As a command it prints the
figures: python -m tests.crash.takeover_times [ROUNDS]
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import asyncpg

from orchestrator.bootstrap import connect
from tests.crash.field_hospital import Process, process, until
from tests.crash.takeover_flows import DIARY, SAGAS, marked, naps
from tests.faults.faults import Deed
from tests.faults.wire_proxy import WireProxy
from tests.poolers import NoPoolerError, open_pooler

MODULE = "tests.crash.takeover_flows"
MANY = 25
TTL, IDLE = 3.0, 2.0
SHORT = {
    "SAGA_LEASE_TTL": str(TTL),
    "SAGA_RENEW_EVERY": "0.2",
    "SAGA_COMMAND_TIMEOUT": "0.4",
    "SAGA_LOCK_TIMEOUT": "0.3",
    "SAGA_CONNECT_TIMEOUT": "1",
    "SAGA_LEASE_MARGIN": "0.5",
    "SAGA_IDLE_IN_TRANSACTION_TIMEOUT": str(IDLE),
}
HELD = """
SELECT s.id::text, s.epoch FROM saga s JOIN worker w ON s.owner = w.id
WHERE right(w.label, length($1) + 1) = ':' || $1 AND w.retired_at IS NULL
"""
TAKEN = """
SELECT h.id, clock_timestamp() AS now FROM unnest($1::text[], $2::int[]) AS h (id, epoch)
JOIN saga s ON s.id = h.id::uuid WHERE s.epoch > h.epoch
"""
CLEAN = """
CREATE TABLE IF NOT EXISTS naps (saga text);
UPDATE worker SET retired_at = clock_timestamp(), reason = 'over' WHERE retired_at IS NULL;
UPDATE saga SET owner = NULL, due_at = NULL, status = 'terminated';
"""
"""What an earlier round left behind would be claimed in vain too often."""
GIVE_UP = 60.0


@dataclass(frozen=True)
class Cause:
    """What happens to a worker, and within which time its instances are to be in other hands."""

    name: str
    promise: float
    strike: Callable[[Ground], Awaitable[datetime]]
    """Does it; the database's time just before."""
    many: int = MANY
    settings: dict[str, str] = field(default_factory=dict)
    wired: bool = False
    pooled: bool = False


@dataclass
class Ground:
    """A database with a worker on it that holds everything, and another that waits."""

    dsn: str
    side: asyncpg.Connection[asyncpg.Record]
    leaving: Process
    pid: int
    wire: WireProxy
    diary: Path
    staying: Process | None = None

    async def now(self) -> datetime:
        """The database's time."""
        found: datetime = await self.side.fetchval("SELECT clock_timestamp()")
        return found

    def calls_of(self, pid: int) -> list[float]:
        """When a worker began its steps, by the machine's monotonic clock."""
        lines = self.diary.read_text().splitlines() if self.diary.exists() else []
        return [at for who, at, _ in map(json.loads, lines) if who == pid]


async def kill(ground: Ground) -> datetime:
    began = await ground.now()
    ground.leaving.kill()
    return began


async def stop(ground: Ground) -> datetime:
    began = await ground.now()
    ground.leaving.send(signal.SIGSTOP)
    return began


async def cut_off(ground: Ground) -> datetime:
    began = await ground.now()
    ground.wire.black_hole()
    return began


async def choke(ground: Ground) -> datetime:
    began = await ground.now()
    ground.wire.trickle(1.0)
    return began


async def tell_to_end(ground: Ground) -> datetime:
    began = await ground.now()
    ground.leaving.send(signal.SIGTERM)
    return began


async def stop_in_transaction(ground: Ground) -> datetime:
    """When the append of a transactional step has locked the row, before its commit is sent."""

    def freeze(_port: int) -> None:
        ground.leaving.send(signal.SIGSTOP)

    assert ground.staying is not None
    # For as long as it takes the other one to have it.
    ground.staying.send(signal.SIGSTOP)
    async with connect(SAGAS, database_url=ground.dsn) as orchestrator:
        # What is prepared once is later only run: then its answer says that the row is locked.
        await (await orchestrator.start(marked, 1)).result(within=20)
        fault = ground.wire.at_statement(
            Deed.CALL_AFTER, "UPDATE saga", session="transaction", act=freeze
        )
        began = await ground.now()
        await orchestrator.start(marked, 2)
        await asyncio.wait_for(fault.first.wait(), 20)
    ground.staying.send(signal.SIGCONT)
    return began


CAUSES = [
    Cause("kill -9, default settings", 2.0, kill),
    Cause("SIGTERM, default settings", 1.0, tell_to_end),
    Cause(f"SIGSTOP, lease of {TTL:g} s", TTL + 2, stop, settings=SHORT),
    Cause(f"cut off, lease of {TTL:g} s", TTL + 2, cut_off, settings=SHORT, wired=True),
    Cause(f"a byte a second, lease of {TTL:g} s", TTL + 2, choke, settings=SHORT, wired=True),
    Cause(
        f"SIGSTOP in a transaction, lease of {TTL:g} s, idle limit of {IDLE:g} s",
        TTL + IDLE + 2, stop_in_transaction, many=0, settings=SHORT, wired=True,
    ),
    Cause(f"kill -9 behind PgBouncer, lease of {TTL:g} s", TTL + 2, kill, settings=SHORT, pooled=True),
]  # fmt: skip


async def measure(cause: Cause, dsn: str, folder: Path) -> list[float]:
    """The seconds for which each instance was alone, sorted."""
    async with _ground(cause, dsn, folder) as ground:
        held: dict[str, int] = {}

        async def holds(count: int) -> bool:
            held.update(await ground.side.fetch(HELD, str(ground.pid)))
            return len(held) >= count

        if cause.many:
            async with connect(SAGAS, database_url=dsn) as orchestrator:
                await asyncio.gather(*(orchestrator.start(naps, 0) for _ in range(cause.many)))
            await until(lambda: holds(cause.many), "a claim of everything")
        async with _worker(cause, ground.dsn, ground.diary) as ground.staying:
            await until(lambda: _joined(ground.side, 2), "a second worker")
            await until(lambda: _settled(ground.side), "a server that has run for a while")
            began = await cause.strike(ground)
            # Steps go on meanwhile, so what is held is what was held before.
            await until(lambda: holds(cause.many or 1), "a look at what is held")
            seconds = await _watch(ground.side, held, began)
            await _look_back(cause, ground)
        return sorted(seconds)


async def _watch(
    side: asyncpg.Connection[asyncpg.Record], held: dict[str, int], began: datetime
) -> list[float]:
    left, seconds = dict(held), []
    limit = asyncio.get_running_loop().time() + GIVE_UP
    while left:
        for row in await side.fetch(TAKEN, list(left), list(left.values())):
            del left[row["id"]]
            seconds.append((row["now"] - began).total_seconds())
        assert asyncio.get_running_loop().time() < limit, f"{len(left)} were never taken over"
        await asyncio.sleep(0.005)
    return seconds


async def _look_back(cause: Cause, ground: Ground) -> None:
    """What else must hold: a worker told to end ends well; one that is cut off stops its steps."""
    if cause.strike is tell_to_end:
        assert await ground.leaving.ended(within=30) == 0
    if cause.strike in (cut_off, choke):
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(1.0)
        assert ground.calls_of(ground.pid)
        assert max(ground.calls_of(ground.pid)) < now, "it began steps that others had by then"


async def _joined(side: asyncpg.Connection[asyncpg.Record], count: int) -> bool:
    found = await side.fetchval("SELECT count(*) FROM worker WHERE retired_at IS NULL")
    return bool(found >= count)


async def _settled(side: asyncpg.Connection[asyncpg.Record]) -> bool:
    """Just after its start nobody is taken for gone: all of them have to connect anew."""
    asked = "SELECT clock_timestamp() > pg_postmaster_start_time() + interval '4 s'"
    return bool(await side.fetchval(asked))


@asynccontextmanager
async def _ground(cause: Cause, dsn: str, folder: Path) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        if cause.pooled:
            dsn = stack.enter_context(open_pooler(dsn))
        wire = await stack.enter_async_context(WireProxy(dsn))
        side = await asyncpg.connect(dsn, statement_cache_size=0)
        stack.push_async_callback(side.close)
        await side.execute(CLEAN)
        diary = folder / "diary.jsonl"
        there = wire.dsn if cause.wired else dsn
        leaving = await stack.enter_async_context(_worker(cause, there, diary))
        await until(lambda: _joined(side, 1), "a worker")
        yield Ground(dsn, side, leaving, leaving.pid, wire, diary)
        wire.heal()


@asynccontextmanager
async def _worker(cause: Cause, dsn: str, diary: Path) -> AsyncIterator[Process]:
    there = {"SAGA_DATABASE_URL": dsn, DIARY: str(diary), **cause.settings}
    async with process("orchestrator", "worker", "--sagas", MODULE, **there) as started:
        yield started


async def rounds_of(cause: Cause, count: int) -> list[float]:
    """The figures of several rounds, each on a database of its own."""
    from tests.servers import fast_server, migrate

    seconds: list[float] = []
    with fast_server() as server, tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            name = f"round_{number}"
            side = await asyncpg.connect(server.dsn("postgres"))
            await side.execute(f"CREATE DATABASE {name}")
            await side.close()
            migrate(server.dsn(name))
            place = Path(folder) / name
            place.mkdir()
            seconds += await measure(cause, server.dsn(name), place)
    return seconds


async def main(rounds: int) -> None:
    """Print a table of the figures, on a server of its own."""
    print(
        f"{'what happened to the worker':66} {'promise':>8} {'sagas':>6} {'median':>7} {'max':>7}"
    )
    for cause in CAUSES:
        try:
            seconds = await rounds_of(cause, rounds)
        except NoPoolerError as reason:
            print(f"{cause.name:66} not measured: {reason}")
            continue
        print(
            f"{cause.name:66} {cause.promise:7.1f}s {len(seconds):6} "
            f"{statistics.median(seconds):6.2f}s {max(seconds):6.2f}s", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
