"""What can go wrong with a database, told apart and put into our words."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import BusyError, InvalidInputError, SchemaError, UnavailableError

TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""All that a driver call raises when the world, and not our code, is at fault."""


_REFUSALS = frozenset(
    {"0A", "21", "22", "23", "25", "28", "40", "42", "44", "53", "54", "55", "P0"}
)

_BUSY = frozenset({"40", "53", "55"})
"""Rolled back for want of something that others will give back: a lock, memory, the disk."""


def is_refusal(error: BaseException) -> bool:
    """Whether the server said no before the commit: the transaction certainly rolled back."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _REFUSALS and state != "40003"
    return _is_bad_argument(error)


def _is_bad_argument(error: BaseException) -> bool:
    """Whether the driver could not encode an argument: nothing was sent."""
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


def unwrapped(error: BaseException) -> BaseException:
    """The driver's own error, where SQLAlchemy put two of its own round it."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return error
    return error.orig.__cause__ or error.orig


def is_away(error: BaseException) -> bool:
    """Whether the server is gone, going, or no longer the one that takes writes."""
    state = getattr(error, "sqlstate", None) or ""
    return (
        state == "25006"
        or state[:3] == "57P"
        or state[:2] == "08"
        or (isinstance(error, OSError) and not isinstance(error, TimeoutError))
    )


def reason(error: BaseException) -> str:
    """What an error says, or at least its name."""
    return str(error) or type(error).__name__


def in_our_words(error: BaseException, place: str) -> Exception:
    """The error of our tree that says what happened at *place*, and what to do."""
    state = getattr(error, "sqlstate", None) or ""
    if state in ("42P01", "42703", "42883"):
        return SchemaError(f"{place}: {error}; run `saga migrate`")
    if state == "42501":
        return UnavailableError(
            f"{place}: {error}; GRANT it to the role, or name another in SAGA_DATABASE_URL "
            "(`saga doctor` lists what is missing)"
        )
    if state[:2] in ("22", "23") or _is_bad_argument(error):
        return InvalidInputError(f"the database refused a value: {error}")
    if state[:2] == "28" or state == "3D000":
        return UnavailableError(f"{place} refused us: {error}; check SAGA_DATABASE_URL")
    if state[:2] in _BUSY:
        return BusyError(f"{place}: {reason(error)}")
    if state and not is_away(error):
        return UnavailableError(f"{place}: {reason(error)}")
    if isinstance(error, TimeoutError):
        return UnavailableError(f"{place} did not answer in time; is the server up, or overloaded?")
    return UnavailableError(
        f"cannot reach {place}: {reason(error)}; is the server up, and is SAGA_DATABASE_URL right?"
    )


def where(dsn: str) -> str:
    """Host, port and database of *dsn*, for people; never the password."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    hosts = parts.netloc.rpartition("@")[2] or ",".join(query.get("host", ["localhost"]))
    port = query.get("port", ["5432"])[0]
    shown = ",".join(_with_port(unquote(host), port) for host in hosts.split(","))
    database = parts.path.lstrip("/") or query.get("dbname", query.get("database", [""]))[0]
    return f"{shown} (database {unquote(database)!r})" if database else shown


def _with_port(host: str, port: str) -> str:
    bare = host.rpartition("]")[2] if host.startswith("[") else host
    return host if ":" in bare else f"{host}:{port}"
