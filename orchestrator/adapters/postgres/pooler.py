"""A pooler between us and the server: found when we connect, and what then cannot be had.

A pooler that shares sessions hands each transaction to any session that is free. What a session
would keep is lost, or somebody else's: settings, prepared statements, LISTEN, advisory locks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg

_REFUSED = "unsupported startup parameter"


async def is_between(dsn: str, options: Mapping[str, Any]) -> bool:
    """Whether something other than the server itself answers at *dsn*.

    A pooler invents the process number that it gives to its clients, and as a rule it refuses
    settings that it does not know.
    """
    try:
        connection = await asyncpg.connect(dsn, **{**options, "statement_cache_size": 0})
    except asyncpg.ProtocolViolationError as error:
        if _REFUSED in str(error):
            return True
        raise
    try:
        told = await connection.fetchval("SELECT pg_backend_pid()")
        return bool(told != connection.get_server_pid())
    finally:
        connection.terminate()


def through(options: Mapping[str, Any]) -> dict[str, Any]:
    """*options* as a pooler takes them: no settings that it does not know, nothing prepared."""
    known = ("application_name", "timezone")
    settings = {name: options["server_settings"][name] for name in known}
    return {**options, "server_settings": settings, "statement_cache_size": 0}


def set_locally(settings: Mapping[str, str]) -> str:
    """The statements that give *settings* to one transaction."""
    return "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())


def engine_arguments(connect: Callable[[], Awaitable[Any]], *, pooled: bool) -> dict[str, Any]:
    """How SQLAlchemy connects by *connect*; through a pooler it must not name what it prepares."""

    async def create(**_: object) -> Any:
        return await connect()

    arguments: dict[str, Any] = {"async_creator_fn": create}
    if pooled:
        nameless = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
        arguments.update(nameless)
    return arguments
