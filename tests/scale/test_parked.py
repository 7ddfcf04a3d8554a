"""A hundred thousand that only wait: the queries of a worker stay few, small, and on their indexes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.adapters.postgres.statements import sql
from tests.adapters.postgres.beside import Connection, open_database
from tests.faults.wire_proxy import WireProxy
from tests.scale.flows import brief, napping
from tests.scale.hall import FULL, PARKED, Hall, full, p99, tell

COUNT = 100_000
AWAY = timedelta(days=2)
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
WORKER = "00000000-0000-4000-8000-000000000001"
ANOTHER = "00000000-0000-4000-8000-000000000002"
FEW_PAGES = 100
"""What a look of an idle worker may read; the table has thousands of pages."""


@pytest.fixture
async def parked(hall: Hall) -> AsyncIterator[Hall]:
    """A hundred thousand instances that wait, a few that are held, and what the planner knows of it."""
    await hall.side.execute(PARKED, napping.name, 1, AWAY, COUNT)
    for worker in (WORKER, ANOTHER):
        await hall.side.execute(
            "INSERT INTO worker (id, label, lease_until) VALUES ($1, 'w', now() + interval '1 h')",
            worker,
        )
    await hall.side.execute(PARKED, brief.name, 1, AWAY, 20)
    await hall.side.execute(
        "UPDATE saga SET owner = $1, due_at = NULL WHERE name = $2", WORKER, brief.name
    )
    await hall.side.execute("ANALYZE")
    return hall


async def run(
    connection: Connection, statement: str, *args: object
) -> tuple[list[str], list[str], int]:
    """The nodes and indexes of a statement's plan as it ran, and how many pages it looked at."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        text = await connection.fetchval(EXPLAIN + statement, *args)
    finally:
        await transaction.rollback()
    [told] = json.loads(text)
    nodes: list[dict[str, Any]] = [told["Plan"]]
    for node in nodes:
        nodes += node.get("Plans", [])
    kinds = [f"{node['Node Type']} {node.get('Relation Name', '')}".strip() for node in nodes]
    indexes = [node["Index Name"] for node in nodes if "Index Name" in node]
    top = told["Plan"]
    return kinds, indexes, top["Shared Hit Blocks"] + top["Shared Read Blocks"]


KNOWN = ["brief", "napping", "poison"], [1, 1, 1]


async def test_no_look_of_an_idle_worker_reads_more_because_a_hundred_thousand_wait(
    parked: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: dict[str, tuple[tuple[object, ...], set[str]]] = {
        "claim_sagas": ((ANOTHER, 500, "default", *KNOWN), {"ix_saga_due"}),
        "list_owned": ((WORKER,), {"ix_saga_owner"}),
        "free_sagas": ((WORKER,), {"ix_saga_owner"}),
        "list_suspects": ((), set()),
        "renew_lease": ((WORKER, timedelta(seconds=30), None), set()),
    }
    pages: dict[str, int] = {}
    for planned in ("pool", "session"):
        # The statements of the pool are planned once, those of a session as the planner likes.
        async with open_database(parked.dsn) as database:
            for name, (args, indexes) in looks.items():

                async def look(
                    connection: Connection, name: str = name, args: tuple[object, ...] = args
                ) -> tuple[list[str], list[str], int]:
                    return await run(connection, sql(name), *args)

                if planned == "pool":
                    kinds, used, read = await database.with_connection(look)
                else:
                    kinds, used, read = await look(parked.side)
                assert indexes <= set(used), f"{name} of a {planned}: {kinds} {used}"
                assert "Seq Scan saga" not in kinds, f"{name} of a {planned}"
                # What is held is 20 rows, each changed with all its indexes.
                assert read < FEW_PAGES + (20 * 20 if name == "free_sagas" else 0), (
                    f"{name}: {read}"
                )
                pages[f"{name}_{planned}"] = read
    tell(capsys, parked=COUNT, **pages)


async def test_a_claim_reads_what_it_takes_and_nothing_of_those_that_wait(
    parked: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    await parked.side.execute(
        "UPDATE saga SET due_at = now() WHERE id IN (SELECT id FROM saga WHERE name = $1 LIMIT 10)",
        napping.name,
    )
    await parked.side.execute("ANALYZE saga")

    async def look(connection: Connection) -> tuple[list[str], list[str], int]:
        return await run(connection, sql("claim_sagas"), ANOTHER, 500, "default", *KNOWN)

    async with open_database(parked.dsn) as database:
        kinds, used, read = await database.with_connection(look)

    tell(capsys, pages_for_ten=read)
    assert "Seq Scan saga" not in kinds
    assert set(used) >= {"ix_saga_due", "pk_saga"}
    assert read < FEW_PAGES + 10 * 30


async def test_who_asks_for_the_overdue_reads_those_that_are_overdue_and_no_more(
    parked: Hall,
) -> None:
    await parked.side.execute(PARKED, "lost", 1, -2 * AWAY, 100)
    await parked.side.execute("ANALYZE saga")

    kinds, used, read = await run(parked.side, sql("list_overdue"))

    assert "ix_saga_due" in used, kinds
    assert "Seq Scan saga" not in kinds
    assert read < FEW_PAGES + 100


async def test_a_worker_beside_a_hundred_thousand_that_wait_asks_less_than_twenty_times_a_second(
    parked: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = 10.0 if FULL else 3.0
    async with WireProxy(parked.dsn) as wire:
        await parked.hire(1, wire.dsn)
        await asyncio.sleep(1.0)
        before, began = wire.counts["statements"], time.monotonic()
        await asyncio.sleep(seconds)
        asked = (wire.counts["statements"] - before) / (time.monotonic() - began)
        parked.dismiss()
    tell(capsys, parked=COUNT, queries_a_second=asked)
    assert 3 < asked < 20, "an idle worker still looks, and seldom"


@full
async def test_a_claim_among_a_hundred_thousand_that_wait_takes_twenty_milliseconds_at_most(
    parked: Hall, capsys: pytest.CaptureFixture[str]
) -> None:
    idle: list[float] = []
    busy: list[float] = []
    async with open_database(parked.dsn) as database:
        for n in range(600):
            took = idle
            if n % 2:
                took = busy
                await parked.side.execute(
                    "UPDATE saga SET due_at = now() WHERE id IN "
                    "(SELECT id FROM saga WHERE name = $1 AND owner IS NULL LIMIT 5)",
                    napping.name,
                )
            began = time.perf_counter()
            await database.fetch(sql("claim_sagas"), ANOTHER, 500, "default", *KNOWN)
            took.append((time.perf_counter() - began) * 1000)
    figures = {"idle_claim_p99_ms": p99(idle), "claim_of_five_p99_ms": p99(busy)}
    tell(capsys, parked=COUNT, **figures)
    assert max(figures.values()) <= 20
