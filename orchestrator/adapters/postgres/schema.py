"""Which schema this code wants, and a refusal to work on another one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import asyncpg

from orchestrator.adapters.postgres.pool import Connection
from orchestrator.errors import SchemaError

VERSION_TABLE = "saga_schema_version"
"""Not Alembic's usual name: the tables may live in a database that has migrations of its own."""


@cache
def head() -> str:
    """The revision that this code wants."""
    return max(path.name[:4] for path in (scripts() / "versions").glob("[0-9]*_*.py"))


async def verify_schema(connection: Connection) -> None:
    """Raise SchemaError unless the database is at the revision that this code wants."""
    try:
        found = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
    except asyncpg.UndefinedTableError:
        found = None
    if found is None:
        raise SchemaError("the database is not migrated; run `saga migrate`")
    if found < head():
        raise SchemaError(
            f"the database is at schema {found}, this code wants {head()}; run `saga migrate`"
        )
    if found > head():
        raise SchemaError(
            f"the database is at schema {found}, newer than the {head()} that this code knows; "
            "upgrade the package saga-orchestrator"
        )


def scripts() -> Path:
    """Where the migrations are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "_migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
