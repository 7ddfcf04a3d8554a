"""Starts that ride in a transaction of the caller's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from orchestrator.domain.events import Json
from orchestrator.errors import InvalidInputError, UnavailableError
from orchestrator.ports import StartAnswer, Store
from tests.adapters.postgres.beside import Connection, waits_for_lock
from tests.adapters.postgres.stepping import insert, rows
from tests.contract.given import ORDER, Given, request

pytestmark = pytest.mark.usefixtures("ledger")


class Undone(Exception):  # noqa: N818 - what makes a caller's block roll back
    pass


@pytest.fixture
async def engine(any_dsn: str) -> AsyncIterator[AsyncEngine]:
    """As an application has one."""
    made = create_async_engine(any_dsn.replace("postgresql://", "postgresql+asyncpg://"))
    yield made
    await made.dispose()


@pytest.fixture
async def pool(any_dsn: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    async with asyncpg.create_pool(any_dsn, min_size=1, max_size=2) as made:
        yield made


Caller = Callable[[], AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["session", "connection", "asyncpg", "pool", "manual"])
def caller(
    request: pytest.FixtureRequest,
    engine: AsyncEngine,
    pool: asyncpg.Pool[asyncpg.Record],
    any_dsn: str,
) -> Caller:
    """What opens a transaction that commits at its end, and rolls back on an error."""

    @asynccontextmanager
    async def session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as made, made.begin():
            yield made

    @asynccontextmanager
    async def driver() -> AsyncIterator[Any]:
        connection = await asyncpg.connect(any_dsn)
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def pooled() -> AsyncIterator[Any]:
        async with pool.acquire() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def manual() -> AsyncIterator[Any]:
        connection = await asyncpg.connect(any_dsn)
        await connection.execute("BEGIN")
        try:
            yield connection
            await connection.execute("COMMIT")
        finally:
            await connection.close()

    found: Caller = {
        "session": session, "connection": engine.begin, "asyncpg": driver, "pool": pooled,
        "manual": manual,
    }[request.param]  # fmt: skip
    return found


async def test_a_start_in_a_callers_transaction_begins_with_its_commit(
    store: Store, given: Given, side: Connection, caller: Caller
) -> None:
    owner, wanted = await given.worker(), request(key="k", tags={"tenant": "acme"})

    async with caller() as within:
        await insert(within, 1)
        answers = await store.requests.start([wanted], within)
        assert answers == [StartAnswer(wanted.saga_id, created=True)]
        assert await store.reads.get(wanted.saga_id) is None
        assert await store.queue.claim(owner, 10, [ORDER]) == []

    assert await rows(side) == [1]
    assert await store.reads.input(wanted.saga_id) == wanted.input
    [claim] = await store.queue.claim(owner, 10, [ORDER])
    assert claim.saga_id == wanted.saga_id


async def test_a_start_is_the_first_statement_of_a_transaction_too(
    store: Store, caller: Caller
) -> None:
    wanted = request()

    async with caller() as within:
        await store.requests.start([wanted], within)
        assert await store.reads.get(wanted.saga_id) is None

    assert await store.reads.get(wanted.saga_id) is not None


async def test_a_start_is_gone_when_the_caller_rolls_back(
    store: Store, side: Connection, caller: Caller
) -> None:
    wanted = request(key="k")

    async def act() -> None:
        async with caller() as within:
            await insert(within, 1)
            await store.requests.start([wanted], within)
            raise Undone

    with pytest.raises(Undone):
        await act()

    assert await rows(side) == []
    assert await store.reads.get(wanted.saga_id) is None
    again = request(key="k", input=Json("2"))
    assert await store.requests.start([again]) == [StartAnswer(again.saga_id, created=True)]


async def test_known_keys_and_ids_are_answered_within_a_transaction_as_outside(
    store: Store, caller: Caller
) -> None:
    known, new = request(key="k", input=Json('{"b" : 1.50}')), request(key="n")
    await store.requests.start([known])

    async with caller() as within:
        assert await store.requests.start([new], within) == [StartAnswer(new.saga_id, created=True)]
        answers = await store.requests.start(
            [
                request(key="k", input=known.input),
                request(key="k", input=Json("2")),
                known,
                request(key="n", input=new.input),
                new,
            ],
            within,
        )

    assert answers == [
        StartAnswer(known.saga_id, created=False, same_input=True),
        StartAnswer(known.saga_id, created=False, same_input=False),
        StartAnswer(known.saga_id, created=False, same_input=True),
        StartAnswer(new.saga_id, created=False, same_input=True),
        StartAnswer(new.saga_id, created=False, same_input=True),
    ]


async def test_a_start_outside_waits_for_the_caller_who_has_its_key(
    store: Store, caller: Caller, side: Connection
) -> None:
    first, second = request(key="k"), request(key="k")

    async with caller() as within:
        await store.requests.start([first], within)
        starting = asyncio.create_task(store.requests.start([second]))
        await waits_for_lock(side)

    assert await starting == [StartAnswer(first.saga_id, created=False, same_input=True)]


async def test_a_step_may_start_an_instance_in_its_transaction(store: Store, given: Given) -> None:
    [(owner, claim)] = await given.claimed()
    wanted = request(name="refund")

    for wanted_type in (AsyncSession, AsyncConnection, asyncpg.Connection):
        async with store.transactions.open(wanted_type) as transaction:
            await store.requests.start([wanted], transaction.handle)
        assert await store.reads.get(wanted.saga_id) is None
    async with store.transactions.open(AsyncSession) as transaction:
        await store.requests.start([wanted], transaction.handle)
        await transaction.append(given.append(owner, claim))

    assert await store.reads.get(wanted.saga_id) is not None


# ---------------------------------------------------------------------------- refused


@pytest.mark.parametrize("within", [object(), "session", Session(), AsyncSession])
async def test_anything_else_is_refused_with_what_is_accepted(store: Store, within: object) -> None:
    with pytest.raises(InvalidInputError, match=r"AsyncSession or AsyncConnection .* asyncpg"):
        await store.requests.start([request()], within)


async def test_a_session_on_another_driver_is_refused_by_name(store: Store, any_dsn: str) -> None:
    other = create_async_engine(any_dsn.replace("postgresql://", "postgresql+psycopg://"))

    async with AsyncSession(other) as session:
        with pytest.raises(InvalidInputError, match=r"postgresql\+psycopg$"):
            await store.requests.start([request()], session)

    await other.dispose()


async def test_an_asyncpg_connection_without_a_transaction_is_refused(
    store: Store, side: Connection
) -> None:
    wanted = request()

    with pytest.raises(InvalidInputError, match="begin one first"):
        await store.requests.start([wanted], side)

    assert await store.reads.get(wanted.saga_id) is None


async def test_a_connection_that_commits_by_itself_is_refused(
    store: Store, engine: AsyncEngine
) -> None:
    wanted = request()

    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(InvalidInputError, match="autocommit"):
            await store.requests.start([wanted], connection)

    assert await store.reads.get(wanted.saga_id) is None


async def test_a_connection_that_went_back_is_refused(
    store: Store, engine: AsyncEngine, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    connection = await pool.acquire()
    await pool.release(connection)
    async with engine.connect() as closed:
        pass

    for within in (connection, closed):
        with pytest.raises(InvalidInputError, match="cannot be used"):
            await store.requests.start([request()], within)


async def test_a_session_without_an_engine_is_refused(store: Store) -> None:
    async with AsyncSession() as session:
        with pytest.raises(InvalidInputError, match="cannot be used"):
            await store.requests.start([request()], session)


async def test_a_value_that_cannot_be_stored_is_refused_and_nothing_of_the_callers_is_committed(
    store: Store, engine: AsyncEngine, side: Connection
) -> None:
    async with AsyncSession(engine) as session:
        await insert(session, 1)
        with pytest.raises(InvalidInputError, match="refused a value"):
            await store.requests.start([request(key="a\x00b")], session)
        await session.rollback()

    assert await rows(side) == []


async def test_a_callers_connection_that_is_lost_is_unavailable(
    store: Store, engine: AsyncEngine, side: Connection
) -> None:
    async with AsyncSession(engine) as session:
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await side.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(UnavailableError):
            await store.requests.start([request()], session)
        await session.invalidate()
