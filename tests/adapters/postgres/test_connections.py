"""Connections are never left in a state that would cost the next user anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import pytest

from orchestrator.adapters.postgres.pool import Connection, Database, PostgresSettings
from orchestrator.adapters.postgres.session import Session
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import BusyError, UnavailableError, UnknownOutcomeError
from tests.adapters.postgres.beside import open_database, waits_for_lock
from tests.contract.given import LEASE, eventually

HEARTBEATS = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'saga heartbeat'"
)


class Stall:
    """A way to a server on which nothing moves while `flows` is not set."""

    def __init__(self) -> None:
        self.flows = asyncio.Event()
        self.flows.set()

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.flows.wait()
            writer.write(data)
        writer.close()


@asynccontextmanager
async def stalling(dsn: str) -> AsyncIterator[tuple[str, Stall]]:
    """A DSN by way of this process, and what holds its traffic up."""
    parts, stall = urlsplit(dsn), Stall()
    users: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stall.flows.wait()
        there = await asyncio.open_connection(parts.hostname, parts.port)
        for source, target in ((reader, there[1]), (there[0], writer)):
            users.add(asyncio.create_task(stall.copy(source, target)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    place = f"{parts.username}:{parts.password}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield urlunsplit(parts._replace(netloc=place)), stall
    finally:
        stall.flows.set()
        server.close()
        for task in users:
            task.cancel()
        await asyncio.gather(*users, return_exceptions=True)


async def test_a_transaction_that_a_stalled_network_left_open_is_nobodys(any_dsn: str) -> None:
    async with stalling(any_dsn) as (dsn, stall):
        database = Database(dsn, PostgresSettings(command_timeout=0.4, pool_size=1))
        await database.open()

        async def work(connection: Connection) -> None:
            await connection.execute("SELECT 1")
            stall.flows.clear()
            # Later than the statement and the rollback give up, and before the pool does.
            asyncio.get_running_loop().call_later(1.0, stall.flows.set)
            await connection.execute("SELECT 2")

        with pytest.raises(UnknownOutcomeError):
            await database.transact(work)

        assert not await in_transaction(database)
        await database.close()


async def test_a_pooled_connection_left_in_a_transaction_is_nobodys(any_dsn: str) -> None:
    async with open_database(any_dsn) as database:
        for _ in range(database.settings.pool_size):
            await database.with_connection(lambda connection: connection.execute("BEGIN"))

            assert not await in_transaction(database)


async def in_transaction(database: Database) -> bool:
    """Whether what one statement does waits for a commit of somebody else's."""
    ids = {
        (await database.fetch("SELECT pg_current_xact_id()::text AS id"))[0]["id"] for _ in range(2)
    }
    return len(ids) == 1


async def left_open(session: Session, broken: str) -> None:
    async with session.use() as connection:
        await connection.execute(broken)
        raise TimeoutError


async def test_a_session_left_in_a_transaction_begins_anew(any_dsn: str) -> None:
    async with open_database(any_dsn) as database:
        session = Session(database, "watch")
        for broken in ("BEGIN", "BEGIN; SELECT 1"):
            with pytest.raises(UnavailableError):
                await left_open(session, broken)
            async with session.use() as connection, connection.transaction():
                assert await connection.fetchval("SELECT 1") == 1
        await session.close()


async def test_a_session_closed_while_it_opens_leaves_no_connection(
    any_dsn: str, side: Connection
) -> None:
    async with open_database(any_dsn) as database:
        begun, go = asyncio.Event(), asyncio.Event()

        async def prepare(_: Connection) -> None:
            begun.set()
            await go.wait()

        session = Session(database, "heartbeat", prepare, eager=True)

        async def use() -> None:
            async with session.use():
                pass

        using = asyncio.create_task(use())
        await begun.wait()
        await session.close()
        go.set()
        with pytest.raises(UnavailableError):
            await using

        async def gone() -> bool:
            return await side.fetchval(HEARTBEATS) == 0

        await eventually(gone, within=5)


async def test_a_join_that_is_cancelled_leaves_no_presence(any_dsn: str, side: Connection) -> None:
    async with open_store(any_dsn) as store:
        async with side.transaction():
            await side.execute("LOCK TABLE worker IN ACCESS EXCLUSIVE MODE")
            joining = asyncio.create_task(
                store.fleet.join("11111111-1111-7111-8111-111111111111", "tester", LEASE)
            )
            await waits_for_lock(side)
            joining.cancel()
            await asyncio.wait({joining})

        async def gone() -> bool:
            return await side.fetchval(HEARTBEATS) == 0

        await eventually(gone, within=5)


async def test_a_worker_joins_although_a_month_ahead_cannot_be_prepared(
    any_dsn: str, side: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    newest = await side.fetchval(
        "SELECT max(inhrelid::regclass::text) FROM pg_inherits "
        "WHERE inhparent = 'event'::regclass AND inhrelid <> 'event_default'::regclass"
    )
    await side.execute(f"DROP TABLE {newest}")
    async with (
        open_store(any_dsn, settings=PostgresSettings(lock_timeout=0.2)) as store,
        side.transaction(),
    ):
        await side.execute("LOCK TABLE event_default IN ACCESS SHARE MODE")  # as a backup does
        await store.fleet.join("11111111-1111-7111-8111-111111111111", "tester", LEASE)

        assert await store.fleet.renew("11111111-1111-7111-8111-111111111111", timedelta(seconds=9))
    assert "partition" in caplog.text


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        ("RAISE disk_full", BusyError),
        ("RAISE out_of_memory", BusyError),
        ("RAISE deadlock_detected", BusyError),
        ("RAISE serialization_failure", BusyError),
        ("RAISE too_many_connections", BusyError),
        ("RAISE lock_not_available", BusyError),
        ("RAISE insufficient_privilege", UnavailableError),
        ("RAISE crash_shutdown", UnavailableError),
    ],
)
async def test_a_database_that_is_busy_is_told_from_one_that_is_away(
    any_dsn: str, refused: str, kind: type[Exception]
) -> None:
    async with open_database(any_dsn) as database:
        with pytest.raises(UnavailableError) as caught:
            await database.fetch(f"DO $$ BEGIN {refused}; END $$")
        assert type(caught.value) is kind
