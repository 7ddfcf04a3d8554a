"""What is special to shared state in Postgres: its locks, its sweeping, and its agreement with the
arithmetic of the domain."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg
import pytest

from orchestrator.adapters.postgres.pool import Database, PostgresSettings
from orchestrator.adapters.postgres.shared_state import PostgresSharedState
from orchestrator.domain.events import Json
from orchestrator.domain.policies import (
    BudgetRule,
    CacheRule,
    Circuit,
    CircuitState,
    Rate,
    circuit_after,
)
from orchestrator.ports import Held, Hit
from tests.adapters.postgres.beside import Connection, open_database, waits_for_lock

MINUTE = timedelta(minutes=1)
BANK = Circuit("bank", failures=2, reset=10 * MINUTE, probes=2)
RATES = CacheRule("rates", ttl=10 * MINUTE, max_size=3)
MONEY = BudgetRule("llm", limit=5.0)
PUT = "INSERT INTO circuit (name, failed, passed, opened_at) VALUES ('bank', $1, $2, $3)"


@pytest.fixture
async def shared(any_dsn: str) -> AsyncIterator[PostgresSharedState]:
    """Shared state over a pool of the store's own kind."""
    async with open_database(any_dsn) as database:
        yield PostgresSharedState(database)


@pytest.fixture
async def watch(any_dsn: str) -> AsyncIterator[Connection]:
    """A connection that is in no transaction while it looks at the others."""
    connection = await asyncpg.connect(any_dsn)
    yield connection
    await connection.close()


# ---------------------------------------------------------------------------- the arithmetic


STATES = [
    (failed, passed, minutes, succeeded)
    for failed, passed, minutes, succeeded in itertools.product(
        (0, 1, 2, 7), (0, 1), (None, 1, 20), (True, False)
    )
    if minutes is not None or passed == 0
]


async def test_a_report_changes_a_circuit_as_the_domain_says(
    shared: PostgresSharedState, side: Connection
) -> None:
    for failed, passed, minutes, succeeded in STATES:
        now = await side.fetchval("SELECT clock_timestamp()")
        opened_at = None if minutes is None else now - minutes * MINUTE
        state = CircuitState(failed, passed, opened_at)
        await side.execute("DELETE FROM circuit")
        await side.execute(PUT, state.failed, state.passed, state.opened_at)

        await shared.report(BANK, succeeded=succeeded)

        expected = circuit_after(BANK, state, now, succeeded=succeeded)
        [row] = await side.fetch("SELECT failed, passed, opened_at FROM circuit")
        found = CircuitState(*row)
        if expected.opened_at == now:
            assert found.opened_at is not None
            assert found.opened_at >= now
            found = replace(found, opened_at=now)
        assert found == expected, (state, succeeded)


async def test_a_held_call_goes_through_once_the_servers_clock_says_so(
    shared: PostgresSharedState, side: Connection
) -> None:
    rate = Rate("bank", calls=1, per=timedelta(milliseconds=200))
    assert await shared.reserve(rate) is None
    held = await shared.reserve(rate)

    if isinstance(held, Held):  # a machine that was away for so long is told nothing
        now: datetime = await side.fetchval("SELECT clock_timestamp()")
        await asyncio.sleep(max((held.until - now).total_seconds(), 0) + 0.005)
        assert await shared.reserve(rate) is None


# ---------------------------------------------------------------------------- locks


async def test_nothing_waits_for_a_lock_while_all_is_well(
    shared: PostgresSharedState, side: Connection
) -> None:
    await shared.report(BANK, succeeded=False)
    await shared.report(BANK, succeeded=True)
    assert await shared.look_up(RATES, "eur", "h", MINUTE) is None
    await shared.keep(RATES, "eur", "h", Json("1"))
    await shared.spend(MONEY, 1.0, "r1")

    async with side.transaction():
        await side.execute("SELECT FROM circuit, cache_entry, budget FOR UPDATE")

        assert await shared.admit(BANK) is None
        await shared.report(BANK, succeeded=True)
        assert await shared.look_up(RATES, "eur", "other", MINUTE) == Hit(Json("1"))
        assert await shared.spent(MONEY) == 1.0


@pytest.mark.parametrize(("opened", "is_held"), [("NULL", False), ("clock_timestamp()", True)])
async def test_a_call_that_waited_for_a_circuit_goes_by_what_became_of_it(
    shared: PostgresSharedState, side: Connection, watch: Connection, opened: str, is_held: bool
) -> None:
    now = await side.fetchval("SELECT clock_timestamp()")
    await side.execute(PUT, 2, 0, now - BANK.reset)

    async with side.transaction():
        await side.execute(f"UPDATE circuit SET failed = 0, opened_at = {opened}")
        asking = [asyncio.create_task(shared.admit(BANK)) for _ in range(4)]
        await waits_for_lock(watch)

    answers = await asyncio.gather(*asking)
    assert [isinstance(answer, Held) for answer in answers] == [is_held] * 4


async def test_a_look_up_that_waited_finds_what_was_kept_meanwhile(
    shared: PostgresSharedState, side: Connection, watch: Connection
) -> None:
    assert await shared.look_up(RATES, "eur", "one", MINUTE) is None

    async with side.transaction():
        await side.execute(
            "UPDATE cache_entry SET output = '7', kept_at = clock_timestamp(), "
            "holder = NULL, held_since = NULL, held_until = NULL"
        )
        asking = asyncio.create_task(shared.look_up(RATES, "eur", "two", MINUTE))
        await waits_for_lock(watch)

    assert await asking == Hit(Json("7"))
    assert await side.fetchval("SELECT holder FROM cache_entry") is None


async def test_keepers_of_one_cache_do_not_deadlock_and_keep_to_its_size(
    any_dsn: str, side: Connection
) -> None:
    stale_at_once = CacheRule("rates", ttl=timedelta(0), max_size=3)

    async def keep(one: PostgresSharedState, number: int) -> None:
        key, holder = f"k{number % 7}", f"h{number}"
        if await one.look_up(stale_at_once, key, holder, MINUTE) is None:
            await one.keep(stale_at_once, key, holder, Json("1"))

    async with open_database(any_dsn) as database, open_database(any_dsn) as another:
        sides = (PostgresSharedState(database), PostgresSharedState(another))
        await asyncio.gather(*(keep(sides[n % 2], n) for n in range(300)))
        await keep(sides[0], 1000)

    assert await side.fetchval("SELECT count(*) FROM cache_entry") == 3
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await side.fetchval(deadlocks) == 0


async def test_who_keeps_does_not_wait_for_an_old_entry_that_is_in_use(
    shared: PostgresSharedState, side: Connection
) -> None:
    for key in "abc":
        assert await shared.look_up(RATES, key, "h", MINUTE) is None
        await shared.keep(RATES, key, "h", Json("1"))
    for key in "de":
        assert await shared.look_up(RATES, key, "h", MINUTE) is None

    async with side.transaction():
        await side.execute("SELECT FROM cache_entry ORDER BY kept_at LIMIT 1 FOR UPDATE")
        await shared.keep(RATES, "d", "h", Json("1"))
        assert await side.fetchval("SELECT count(kept_at) FROM cache_entry") == 4

    await shared.keep(RATES, "e", "h", Json("1"))
    assert await side.fetchval("SELECT count(kept_at) FROM cache_entry") == 3


async def test_an_entry_that_is_computed_anew_is_not_dropped_for_its_age(
    shared: PostgresSharedState, side: Connection
) -> None:
    for key in "abc":
        assert await shared.look_up(RATES, key, "h", MINUTE) is None
        await shared.keep(RATES, key, "h", Json("1"))
    await side.execute("UPDATE cache_entry SET kept_at = kept_at - interval '1 hour'")
    assert await shared.look_up(RATES, "a", "busy", MINUTE) is None

    for key in "de":
        assert await shared.look_up(RATES, key, "h", MINUTE) is None
        await shared.keep(RATES, key, "h", Json("1"))

    assert isinstance(await shared.look_up(RATES, "a", "other", MINUTE), Held)


# ---------------------------------------------------------------------------- sweeping


async def test_what_silent_holders_left_is_swept_up(
    shared: PostgresSharedState, side: Connection
) -> None:
    for key in "abcde":
        assert await shared.look_up(RATES, key, "gone", timedelta(0)) is None
    assert await shared.look_up(RATES, "f", "busy", MINUTE) is None
    assert await shared.look_up(RATES, "g", "h", MINUTE) is None

    await shared.keep(RATES, "g", "h", Json("1"))

    assert await side.fetchval("SELECT count(*) FROM cache_entry") == 2


async def test_receipts_are_forgotten_after_ninety_days(
    shared: PostgresSharedState, side: Connection
) -> None:
    for number in range(3):
        await shared.spend(MONEY, 1.0, f"r{number}")
    await side.execute("UPDATE budget_receipt SET spent_at = spent_at - interval '89 days'")
    await shared.spend(MONEY, 1.0, "r3")
    assert await side.fetchval("SELECT count(*) FROM budget_receipt") == 4

    await side.execute("UPDATE budget_receipt SET spent_at = spent_at - interval '2 days'")
    await shared.spend(MONEY, 1.0, "r4")

    assert await side.fetchval("SELECT count(*) FROM budget_receipt") == 2
    assert await shared.spent(MONEY) == 5.0


# ---------------------------------------------------------------------------- namespaces


async def test_namespaces_share_nothing(any_dsn: str, shared: PostgresSharedState) -> None:
    rate = Rate("bank", calls=1, per=MINUTE)
    for _ in range(2):
        await shared.report(BANK, succeeded=False)
    await shared.reserve(rate)
    assert await shared.look_up(RATES, "eur", "h", MINUTE) is None
    await shared.keep(RATES, "eur", "h", Json("1"))
    await shared.spend(MONEY, 1.0, "r1")

    database = Database(any_dsn, PostgresSettings(namespace="blue"))
    await database.open()
    blue = PostgresSharedState(database)
    try:
        assert await blue.admit(BANK) is None
        assert await blue.reserve(rate) is None
        assert await blue.look_up(RATES, "eur", "h", MINUTE) is None
        assert await blue.spent(MONEY) == 0.0
        await blue.spend(MONEY, 2.0, "r1")
        assert await blue.spent(MONEY) == 2.0
    finally:
        await database.close()
    assert await shared.spent(MONEY) == 1.0
