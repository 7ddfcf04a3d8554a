"""`make bench`: W1, W2 and W3 beside the limits of this machine, then `each` and replay, and the relay."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import each, limits, relay, workloads
from benchmarks.flows import three_steps, two_undone
from orchestrator import Status
from orchestrator.adapters.postgres.migrate import upgrade
from orchestrator.bootstrap import open_database, spare_the_collector
from orchestrator.settings import Settings


async def measure(dsn: str, wanted: argparse.Namespace) -> dict[str, float]:
    """All figures of one run that are wanted."""
    figures: dict[str, float] = {}
    if wanted.only in (None, "rates"):
        figures |= await rates(dsn, wanted.sagas, wanted.slots)
    if wanted.only in (None, "each"):
        figures |= await each.measure(dsn, wanted.rounds)
    if wanted.only in (None, "relay"):
        figures |= await relay.measure(dsn, wanted.sagas, wanted.slots)
    return figures


async def rates(dsn: str, count: int, slots: int) -> dict[str, float]:
    """Whole sagas. Rates are per second, times in milliseconds."""
    commits = await limits.commits_per_second(dsn, 3)
    rows = await limits.rows_per_second(dsn, 3)
    w1 = await workloads.throughput(dsn, three_steps, count, Status.COMPLETED, slots)
    p50, p99 = await workloads.latency(dsn, three_steps, 1000)
    w3 = await workloads.throughput(dsn, two_undone, count, Status.COMPENSATED, slots)
    return {
        "commits_per_second": commits,
        "rows_per_second": rows,
        "w1_sagas_per_second": w1,
        "w2_p50_ms": p50,
        "w2_p99_ms": p99,
        "w3_sagas_per_second": w3,
    }


def report(figures: dict[str, float]) -> None:
    """The figures as a table, each beside the limit that bounds it."""
    if "commits_per_second" in figures:
        Console().print(_rates(figures))
    if "replay_events" in figures:
        for table in each.tables(figures):
            Console().print(table)
    if "relay_limit" in figures:
        Console().print(relay.table(figures))


def _rates(figures: dict[str, float]) -> Table:
    commits, rows = figures["commits_per_second"], figures["rows_per_second"]
    w1, w3 = figures["w1_sagas_per_second"], figures["w3_sagas_per_second"]
    table = Table("figure", "measured", "beside the limit", title="saga-orchestrator benchmarks")
    table.add_row("limit: commits/s, one connection", f"{commits:,.0f}", "")
    table.add_row("limit: rows/s, unnest, 100 a commit", f"{rows:,.0f}", "")
    table.add_row(
        "W1 three steps, sagas/s", f"{w1:,.0f}",
        f"{w1 * 5:,.0f} events/s = {w1 * 5 / rows:.0%} of rows/s; {w1 / commits:.1f} sagas a commit/s",
    )  # fmt: skip
    table.add_row(
        "W2 start to result, p50 / p99 ms",
        f"{figures['w2_p50_ms']:.2f} / {figures['w2_p99_ms']:.2f}",
        f"four commits take {4000 / commits:.2f} ms",
    )
    table.add_row("W3 two undone, sagas/s", f"{w3:,.0f}", f"{w3 / w1:.2f} x W1")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sagas", type=int, default=20_000, help="instances for W1 and W3")
    parser.add_argument("--slots", type=int, default=500, help="instances in memory at once")
    parser.add_argument("--rounds", type=int, default=3, help="times that `each` is measured")
    parser.add_argument("--only", choices=("rates", "each", "relay"), help="a part of it")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    figures = run(args)
    if args.json:
        Console().print_json(json.dumps(figures))
    else:
        report(figures)


def run(wanted: argparse.Namespace) -> dict[str, float]:
    """Measure on `SAGA_DATABASE_URL`, else on a new embedded Postgres on disk."""
    spare_the_collector()
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_run(wanted))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(wanted))


async def _run(wanted: argparse.Namespace) -> dict[str, float]:
    base = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="saga-bench-", dir=base) as folder:
        settings = Settings()
        if settings.database_url is None:
            settings = settings.model_copy(update={"state_dir": Path(folder)})
        async with open_database(settings) as database:
            await asyncio.to_thread(upgrade, database.dsn)
            return await measure(database.dsn, wanted)


if __name__ == "__main__":
    main()
