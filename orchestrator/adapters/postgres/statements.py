"""The SQL files, read once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def sql(name: str) -> str:
    """The statement in `sql/<name>.sql`."""
    return (
        files("orchestrator.adapters.postgres")
        .joinpath("sql", f"{name}.sql")
        .read_text(encoding="utf-8")
    )
