"""A database that is away is reported as such, soon, and with what to do."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.postgres.trouble import where
from orchestrator.errors import InvalidInputError, UnavailableError, UnknownOutcomeError
from orchestrator.ports import Store
from tests.adapters.postgres.beside import Connection, waits_for_lock
from tests.contract.given import Given, request

QUICK = PostgresSettings(lock_timeout=0.2)
LOCK = "SELECT FROM saga WHERE id = $1 FOR UPDATE"
KILL_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.mark.parametrize("listening", [False, True], ids=["closed port", "silent server"])
async def test_opening_a_store_fails_within_five_seconds_and_names_the_place(
    listening: bool,
) -> None:
    # The kernel accepts for a server that never says a word.
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    if not listening:
        server.close()
    began = time.monotonic()

    with pytest.raises(UnavailableError) as caught:
        async with open_store(f"postgresql://ann:s3cret@127.0.0.1:{port}/shop"):
            pass

    server.close()
    assert time.monotonic() - began < 6
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "shop" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert not isinstance(caught.value, UnknownOutcomeError)


async def test_a_wrong_password_says_where_to_look(dsn: str) -> None:
    scheme, _, rest = dsn.partition("://")
    wrong = f"{scheme}://postgres:s3cret@{rest.rpartition('@')[2]}"

    with pytest.raises(UnavailableError, match="SAGA_DATABASE_URL") as caught:
        async with open_store(wrong):
            pass
    assert "s3cret" not in str(caught.value)


async def test_a_read_only_database_is_unavailable(any_dsn: str, side: Connection) -> None:
    name = await side.fetchval("SELECT current_database()")
    await side.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    with pytest.raises(UnavailableError):
        async with open_store(any_dsn):
            pass


async def test_after_all_connections_were_ended_the_store_works_again(
    store: Store, given: Given, side: Connection
) -> None:
    [saga_id] = await given.started()
    await side.execute(KILL_OTHERS)

    async def get() -> bool:
        try:
            return await store.reads.get(saga_id) is not None
        except UnavailableError:
            return False

    assert await get() or await get()


async def test_an_append_that_loses_its_connection_is_unknown(
    store: Store, given: Given, side: Connection
) -> None:
    [(owner, claim)] = await given.claimed()
    async with side.transaction():
        await side.fetch(LOCK, claim.saga_id)
        append = asyncio.create_task(store.events.append([given.append(owner, claim)]))
        await waits_for_lock(side)
        await side.execute(KILL_OTHERS)
        with pytest.raises(UnknownOutcomeError):
            await append


async def test_an_append_that_gives_up_waiting_is_certainly_not_written(
    any_dsn: str, side: Connection
) -> None:
    async with open_store(any_dsn, settings=QUICK) as store:
        given = Given(store)
        [(owner, claim)] = await given.claimed()
        async with side.transaction():
            await side.fetch(LOCK, claim.saga_id)
            with pytest.raises(UnavailableError) as caught:
                await store.events.append([given.append(owner, claim)])

        assert not isinstance(caught.value, UnknownOutcomeError)
        assert await store.events.append([given.append(owner, claim)]) == {claim.saga_id: 0}


async def test_an_append_that_takes_too_long_is_unknown(any_dsn: str, side: Connection) -> None:
    settings = PostgresSettings(command_timeout=0.3, lock_timeout=10)
    async with open_store(any_dsn, settings=settings) as store:
        given = Given(store)
        [(owner, claim)] = await given.claimed()
        async with side.transaction():
            await side.fetch(LOCK, claim.saga_id)
            with pytest.raises(UnknownOutcomeError):
                await store.events.append([given.append(owner, claim)])


async def test_cancelling_the_caller_does_not_cancel_the_append(
    store: Store, given: Given, side: Connection
) -> None:
    [(owner, claim)] = await given.claimed()
    async with side.transaction():
        await side.fetch(LOCK, claim.saga_id)
        append = asyncio.create_task(store.events.append([given.append(owner, claim)]))
        await waits_for_lock(side)
        append.cancel()
        with pytest.raises(asyncio.CancelledError):
            await append

    again = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)
    assert again is not None
    assert again.head == 1


async def test_one_bad_value_does_not_take_its_neighbours_down(store: Store, given: Given) -> None:
    good, bad = await given.claimed(2)
    spoilt = given.append(*bad, data="no json")

    assert await store.events.append([given.append(*good), spoilt]) == {good[1].saga_id: 0}
    with pytest.raises(UnavailableError, match="refused a value"):
        await store.events.append([spoilt])


async def test_a_start_with_a_value_that_cannot_be_stored_is_refused(store: Store) -> None:
    for bad in (request(key="a\x00b"), request(key="\ud800"), request(saga_id="no-id")):
        with pytest.raises(InvalidInputError):
            await store.requests.start([bad])


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:p@db.example:6432/shop", "db.example:6432 (database 'shop')"),
        ("postgresql://u:p%40ss@db/shop?sslmode=require", "db:5432 (database 'shop')"),
        ("postgresql://a:1,b:2/shop", "a:1,b:2 (database 'shop')"),
        ("postgresql:///shop?host=/run/pg", "/run/pg:5432 (database 'shop')"),
        ("postgresql://[::1]/shop", "[::1]:5432 (database 'shop')"),
        ("postgresql://u:p@db", "db:5432"),
    ],
)  # fmt: skip
def test_a_place_is_shown_without_its_secrets(dsn: str, shown: str) -> None:
    assert where(dsn) == shown
