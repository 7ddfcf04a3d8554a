"""The caller's own transaction: from what they hold to the driver's connection inside of it."""

from __future__ import annotations

from typing import cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from orchestrator.adapters.postgres.pool import Connection
from orchestrator.adapters.postgres.trouble import TROUBLE, in_our_words, unwrapped
from orchestrator.errors import InvalidInputError

ACCEPTED = (
    "an SQLAlchemy AsyncSession or AsyncConnection on postgresql+asyncpg, or an asyncpg connection "
    "inside of a transaction"
)


async def connection_of(within: object, place: str) -> Connection:
    """The driver's connection of *within*, in its transaction, which is begun if it was not.

    Raises InvalidInputError for an object that has none, and where nothing would be committed
    later because everything is committed at once.
    """
    if isinstance(within, AsyncSession | AsyncConnection):
        try:
            return await _of_sqlalchemy(within)
        except SQLAlchemyError as error:
            if isinstance(cause := unwrapped(error), TROUBLE):
                raise in_our_words(cause, place) from error
            raise InvalidInputError(f"the caller's transaction cannot be used: {error}") from error
    if not isinstance(within, asyncpg.Connection | PoolConnectionProxy):
        raise InvalidInputError(f"a start can ride in {ACCEPTED}; this is {_kind(within)}")
    driver = cast("Connection", within)
    try:
        open_ = driver.is_in_transaction()
    except asyncpg.InterfaceError as error:  # it went back to its pool
        raise InvalidInputError(f"the caller's connection cannot be used: {error}") from error
    if not open_:
        raise InvalidInputError(
            "this asyncpg connection is in no transaction; begin one first: "
            "`async with connection.transaction():`"
        )
    return driver


async def _of_sqlalchemy(within: AsyncSession | AsyncConnection) -> Connection:
    connection = await within.connection() if isinstance(within, AsyncSession) else within
    dialect = connection.dialect
    if (dialect.name, dialect.driver) != ("postgresql", "asyncpg"):
        raise InvalidInputError(
            f"a start can ride in {ACCEPTED}; this {type(within).__name__} is on "
            f"{dialect.name}+{dialect.driver}"
        )
    driver = await driver_of(connection)
    if not driver.is_in_transaction():
        # SQLAlchemy puts the BEGIN off until the first statement.
        await connection.exec_driver_sql("SELECT 1")
    if not driver.is_in_transaction():
        raise InvalidInputError(
            f"this {type(within).__name__} is in autocommit mode: it has no transaction to ride in"
        )
    return driver


async def driver_of(connection: AsyncConnection) -> Connection:
    """The driver's connection beneath one of SQLAlchemy's."""
    raw = await connection.get_raw_connection()
    return cast("Connection", raw.driver_connection)


def _kind(found: object) -> str:
    return f"{type(found).__module__}.{type(found).__qualname__}"
